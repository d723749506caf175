"""A plan by hand: which rank at which lengths."""

from narrows import Budget, Plan
from narrows._values import Choice


def plan(table, *, kind="linear", in_features=6, out_features=8, heads=1):
    """Return a plan from {(first, last): rank or None}."""
    choices = tuple(
        Choice(first, last, rank, "two", 1.0, 2.0, 2.0, 1.9, 2.1, 100, 0.1, ("because",))
        for (first, last), rank in table.items()
    )
    sizes = {"kind": kind, "in_features": in_features, "out_features": out_features, "heads": heads}
    return Plan(
        **sizes,
        dtype="float32",
        mode="eager",
        cache="hot",
        weight="w",
        budget=Budget(),
        choices=choices,
        fingerprint="f",
        device_name="d",
        version="0",
    )
