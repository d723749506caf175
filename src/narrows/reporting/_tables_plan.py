"""Tables of decisions: a plan, and what two reports say about each other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from narrows.reporting import _cells as cells
from narrows.reporting._table import Cell, Column, Table
from narrows.reporting._tables import choice_speedup
from narrows.reporting._text import MISSING, bytes_text, percent_text

if TYPE_CHECKING:
    from narrows._values import Choice, Plan
    from narrows.planning import Difference, Differences


def plan_table(plan: Plan) -> Table:
    """Return a plan as a table: what to run for which number of tokens, its figures and reasons."""
    columns = (
        Column("tokens_from", "From T"),
        Column("tokens_to", "To T"),
        cells.left("use", "Use"),
        Column("speedup", "Speedup [99 %]"),
        Column("error", "Error"),
        Column("time_ns", "Time"),
        Column("dense_ns", "Dense"),
        Column("bytes", "Bytes"),
        cells.left("implementation", "By"),
    )
    title = (
        f"Plan for {plan.kind} {plan.in_features}x{plan.out_features} {plan.dtype}, weight {plan.weight} "
        f"({plan.mode}, {plan.cache}), measured on {plan.device_name}"
    )
    note = f"Budget: {budget_text(plan)}. Between two measured lengths a rank must win at both."
    return Table("plan", title, columns, tuple(_choice_row(choice) for choice in plan.choices), note)


def budget_text(plan: Plan) -> str:
    """Return the budget in words."""
    budget = plan.budget
    parts = [] if budget.error is None else [f"error at most {percent_text(budget.error)}"]
    parts += [] if budget.min_speedup is None else [f"speedup at least {budget.min_speedup:g}x"]
    parts += [] if budget.max_bytes is None else [f"at most {bytes_text(budget.max_bytes)}"]
    return ", ".join(parts) or "none (no error was bounded)"


def _choice_row(choice: Choice) -> tuple[Cell, ...]:
    return (
        cells.number(choice.tokens_from),
        cells.number(choice.tokens_to),
        cells.word("dense" if choice.rank is None else f"rank {choice.rank}"),
        choice_speedup(choice),
        cells.error(choice.error),
        cells.time(choice.time_ns),
        cells.time(choice.dense_ns),
        cells.size(choice.bytes),
        cells.word(choice.implementation),
    )


def reasons_table(plan: Plan) -> Table:
    """Return why each choice of a plan was made, one sentence a row."""
    columns = (Column("tokens_from", "From T"), Column("tokens_to", "To T"), cells.left("reason", "Reason"))
    rows = tuple(
        (cells.number(choice.tokens_from), cells.number(choice.tokens_to), cells.word(reason))
        for choice in plan.choices
        for reason in choice.reasons
    )
    return Table("reasons", "Why", columns, rows)


def differences_table(differences: Differences) -> Table:
    """Return the ratio of times of every row that two reports share, or "not distinguishable"."""
    columns = (
        cells.left("mode", "Mode"),
        cells.left("cache", "Cache"),
        Column("tokens", "Tokens"),
        Column("rank", "Rank"),
        cells.left("variant", "Variant"),
        Column("a_ns", "A"),
        Column("b_ns", "B"),
        Column("ratio", "A / B"),
        Column("low", "Low"),
        Column("high", "High"),
        cells.left("verdict", "B is"),
    )
    rows = tuple(_difference_row(row) for row in differences.rows)
    note = (
        f"{len(differences.slower)} of {len(rows)} rows are slower in B and {len(differences.faster)} faster by more "
        f"than 2 %, the middle 90 % of their samples apart; {len(differences.only_a)} rows are only in A, "
        f"{len(differences.only_b)} only in B."
    )
    forced = f" Compared by force: {' '.join(differences.conditions)}" if differences.conditions else ""
    return Table("compare", "Time in A / time in B", columns, rows, note + forced)


def _difference_row(row: Difference) -> tuple[Cell, ...]:
    is_told = row.ratio.verdict in {"faster", "slower"}
    verdict = row.ratio.verdict if is_told else "not distinguishable"
    return (
        cells.word(row.mode),
        cells.word(row.cache),
        cells.number(row.tokens),
        MISSING if row.rank is None else cells.number(row.rank),
        cells.word(row.variant),
        cells.time(row.a_ns),
        cells.time(row.b_ns),
        Cell(row.ratio.value, f"{row.ratio.value:.3f}"),
        Cell(row.ratio.low, f"{row.ratio.low:.3f}"),
        Cell(row.ratio.high, f"{row.ratio.high:.3f}"),
        cells.word(verdict),
    )
