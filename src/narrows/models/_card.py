"""The README.md of a compressed model's folder: what was done, what it gained and cost, how to load it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from narrows._values import ModelPlan
    from narrows.models._manifest import Manifest

_UNSAFE = str.maketrans({"\n": " ", "\r": " ", "<": "&lt;", "|": "\\|", "`": "'"})


def card(manifest: Manifest) -> str:
    """Return the model card as Markdown, with the head that model hubs read."""
    return "\n".join([*_head(manifest), *_done(manifest), *_measured(manifest), *_loading(manifest)])


def _head(manifest: Manifest) -> list[str]:
    name = _plain(manifest.source.name) if manifest.source else None
    lines = ["---", "library_name: transformers", "tags:", "- narrows", "- low-rank"]
    if name:
        lines.append(f'base_model: "{name}"')
    return [*lines, "---", "", f"# {name or manifest.architecture}, compressed by narrows", ""]


def _done(manifest: Manifest) -> list[str]:
    plan, forms = manifest.plan, Counter[str]()
    for name, record in manifest.layers.items():
        number = len(record.stands_for(name))
        forms[record.form if number == 1 else f"shared {record.form}"] += number
    counts = ", ".join(f"{number} {form}" for form, number in sorted(forms.items())) or "none"
    of = "" if plan is None else f", of {len(plan.layers)} in the plan"
    rows = [("layers replaced", f"{counts}{of}"), *_planned(plan), ("narrows", manifest.version)]
    table = [f"| {_plain(what)} | {_plain(value)} |" for what, value in rows]
    return ["## What was done", "", "| | |", "|---|---|", *table, ""]


def _planned(plan: ModelPlan | None) -> list[tuple[str, str]]:
    if plan is None:
        return []
    speed = "not measured" if plan.speedup is None else f"{plan.speedup:.2f}x"
    return [
        ("method", plan.method),
        ("numbers kept in the plan's layers", f"{plan.kept:.1%}"),
        ("expected growth of the loss", f"{plan.damage:.4g} nats a token"),
        ("expected speedup", f"{speed} at {', '.join(map(str, plan.workloads))}"),
        ("machine of the times", plan.device_name or "none"),
        ("dtype of the times", plan.dtype),
    ]


def _measured(manifest: Manifest) -> list[str]:
    if not manifest.certificate:
        return ["## Quality and speed", "", "Not measured.", ""]
    return ["## Quality and speed", "", *_items(manifest.certificate, 0), ""]


def _loading(manifest: Manifest) -> list[str]:
    without = (
        "Without narrows, transformers stops with an error about mismatched sizes: each replaced weight is kept "
        "as a tensor without elements, so that nothing is ever filled in at random."
        if manifest.layers
        else "No layer was replaced, so transformers loads this folder without narrows too."
    )
    return [
        "## Loading",
        "",
        "```python",
        "import narrows.models  # pip install 'narrows[models]'",
        "",
        'model = narrows.models.load("FOLDER")',
        f'# or, after that import: transformers.{_plain(manifest.architecture)}.from_pretrained("FOLDER")',
        "```",
        "",
        "Before a weight is read, every file and tensor is compared with the SHA-256 in `narrows.json`.",
        f"{without}",
        "",
        "`narrows.models.densify(model)` makes an ordinary dense model of it.",
        "",
    ]


def _items(values: Mapping[str, Any] | Sequence[Any], depth: int) -> list[str]:
    """Return a nested list of what was measured, as it was given."""
    named = values.items() if isinstance(values, Mapping) else ((str(i), one) for i, one in enumerate(values, 1))
    lines: list[str] = []
    for name, value in named:
        start = f"{'  ' * depth}- {_plain(name)}:"
        if isinstance(value, (Mapping, list, tuple)):
            lines += [start, *_items(value, depth + 1)]
        else:
            lines.append(f"{start} {_plain(f'{value:.5g}' if isinstance(value, float) else value)}")
    return lines


def _plain(value: object) -> str:
    """Return text on one line that Markdown, HTML and YAML read as text."""
    text = str(value).translate(_UNSAFE).replace('"', "'")
    return "".join(letter for letter in text if letter.isprintable())
