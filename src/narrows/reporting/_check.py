"""Tables of a check: quality, speed, storage, sample and verdict, dense and compressed side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING

from narrows._stats import doubts, median, paired_ratio
from narrows.reporting import _cells as cells
from narrows.reporting._table import Cell, Column, Table
from narrows.reporting._text import MISSING, bytes_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from narrows._values._check import Check, CheckedSide, Estimate, Judgement, Timing

SIDES = {
    "dense": "dense",
    "narrows": "narrows",
    "int8": "int8 weights",
    "naive": "naive factors",
}


def check_tables(check: Check) -> tuple[Table, ...]:
    """Return everything that a check found, the verdict first (there is none without a budget)."""
    verdict = (verdict_table(check),) if check.judgements else ()
    sample = (sample_table(check),) if check.sample is not None else ()
    quality = language_table(check) if check.kind == "causal" else encoder_table(check)
    doubtful = doubts_check_table(check)
    doubted = (doubtful,) if doubtful.rows else ()
    return (*verdict, quality, speed_check_table(check), *doubted, storage_table(check), *sample)


def verdict_table(check: Check) -> Table:
    """Return each part of the budget with what was found and whether it is met."""
    word = "met" if check.is_met else "broken" if check.is_broken else "cannot tell"
    columns = (
        cells.left("part", "Budget"),
        Column("limit", "Limit"),
        Column("found", "Found"),
        Column("low", "Low", is_detail=True),
        Column("high", "High", is_detail=True),
        cells.left("answer", "Answer"),
        cells.left("reason", "Figures"),
    )
    note = "Met and broken are said only where the whole interval lies on one side of the limit."
    rows = tuple(_verdict_row(one) for one in check.judgements)
    return Table("verdict", f"Verdict on {check.folder}: {word}", columns, rows, note)


def _verdict_row(one: Judgement) -> tuple[Cell, ...]:
    found = one.found
    return (
        cells.word(one.part),
        _limit_cell(one.part, one.limit),
        MISSING if found is None else _limit_cell(one.part, found.value),
        MISSING if found is None or found.low is None else _limit_cell(one.part, found.low),
        MISSING if found is None or found.high is None else _limit_cell(one.part, found.high),
        cells.word(one.answer),
        cells.word(one.reason),
    )


def _limit_cell(part: str, value: float) -> Cell:
    if part == "max_bytes":
        return Cell(value, bytes_text(value))
    return Cell(value, f"{value:.3f}x" if part == "speedup" else f"{value:.2%}")


def language_table(check: Check) -> Table:
    """Return perplexity, divergence and agreement of every side that has them."""
    columns = (
        cells.left("side", "Model"),
        Column("perplexity", "Perplexity"),
        *_estimate_columns("ratio", "x dense"),
        *_estimate_columns("divergence", "KL, nats"),
        *_estimate_columns("agreement", "Same first token"),
        cells.left("missing", "Not shown"),
    )
    rows = tuple(_language_row(side) for side in check.sides if side.name != "naive")
    return Table("quality", f"Quality of {check.folder} against {check.model}", columns, rows, _quality_note(check))


def _language_row(side: CheckedSide) -> tuple[Cell, ...]:
    found = side.language
    if found is None:
        return (cells.word(SIDES[side.name]), *[MISSING] * 10, cells.word(side.missing))
    return (
        cells.word(SIDES[side.name]),
        Cell(found.perplexity, f"{found.perplexity:.4g}"),
        *_estimate_cells(found.ratio, "{:.4f}"),
        *_estimate_cells(found.divergence, "{:.3g}"),
        *_estimate_cells(found.agreement, "{:.1%}"),
        cells.word(side.missing),
    )


def encoder_table(check: Check) -> Table:
    """Return similarity of embeddings, correlation with people's scores and accuracy of every side that has them."""
    columns = (
        cells.left("side", "Model"),
        *_estimate_columns("similarity", "Cosine to dense"),
        Column("correlation", "Spearman"),
        *_estimate_columns("correlation_change", "Change"),
        Column("accuracy", "Accuracy"),
        *_estimate_columns("accuracy_change", "Change"),
        cells.left("missing", "Not shown"),
    )
    rows = tuple(_encoder_row(side) for side in check.sides if side.name != "naive")
    return Table("quality", f"Quality of {check.folder} against {check.model}", columns, rows, _quality_note(check))


def _encoder_row(side: CheckedSide) -> tuple[Cell, ...]:
    found = side.encoder
    if found is None:
        return (cells.word(SIDES[side.name]), *[MISSING] * 11, cells.word(side.missing))
    return (
        cells.word(SIDES[side.name]),
        *_estimate_cells(found.similarity, "{:.4f}"),
        MISSING if found.correlation is None else Cell(found.correlation, f"{found.correlation:.4f}"),
        *_estimate_cells(found.correlation_change, "{:+.4f}"),
        MISSING if found.accuracy is None else Cell(found.accuracy, f"{found.accuracy:.1%}"),
        *_estimate_cells(found.accuracy_change, "{:+.1%}"),
        cells.word(side.missing),
    )


def _estimate_columns(name: str, title: str) -> tuple[Column, ...]:
    return (
        Column(name, f"{title} [95 %]"),
        Column(f"{name}_low", "Low", is_detail=True),
        Column(f"{name}_high", "High", is_detail=True),
    )


def _estimate_cells(found: Estimate | None, form: str) -> tuple[Cell, ...]:
    if found is None:
        return (MISSING, MISSING, MISSING)
    value = form.format(found.value)
    if found.low is None or found.high is None:
        return (Cell(found.value, f"{value} [too few]"), MISSING, MISSING)
    low, high = form.format(found.low), form.format(found.high)
    return (Cell(found.value, f"{value} [{low}, {high}]"), Cell(found.low, low), Cell(found.high, high))


def _quality_note(check: Check) -> str:
    text = check.text
    if text is None:
        return "No text was read."
    part = "the part kept for checks" if text.part == "check" else "all of it"
    what = (
        f"{text.windows} windows of {text.tokens} tokens from {text.documents} documents"
        if check.kind == "causal"
        else f"{text.documents} documents, each cut at {text.tokens} tokens"
    )
    return (
        f"Text: {text.source} ({part}), {what}, seed {text.seed}. Intervals are over documents (or items), both models "
        "reading the same ones."
    )


def speed_check_table(check: Check) -> Table:
    """Return the time of every side at every workload beside dense, with what each loses."""
    quality = "Perplexity x dense" if check.kind == "causal" else "Cosine to dense"
    columns = (
        cells.left("workload", "Workload"),
        cells.left("side", "Model"),
        Column("time_ns", "Time"),
        Column("speedup", "Speedup [99 %]"),
        Column("low", "Low", is_detail=True),
        Column("high", "High", is_detail=True),
        cells.left("verdict", "Is"),
        Column("quality", quality),
        Column("peak_bytes", "Peak memory"),
        Column("rounds", "Rounds", is_detail=True),
        cells.left("missing", "Not shown"),
    )
    title = f"Speed on {check.device_name}, {check.dtype}, eager"
    return Table("speed", title, columns, tuple(_speed_rows(check)), _speed_note(check))


def _speed_rows(check: Check) -> Iterator[tuple[Cell, ...]]:
    for workload in dict.fromkeys(one.workload for one in check.timings):
        timed = {one.side: one for one in check.timings if one.workload == workload}
        for side in check.sides:
            head = (cells.word(str(workload)), cells.word(SIDES[side.name]))
            if side.name in timed:
                yield (*head, *_timed_cells(check, timed["dense"], timed[side.name]))
            else:
                yield (*head, *[MISSING] * 8, cells.word(side.missing))


def _timed_cells(check: Check, dense: Timing, one: Timing) -> tuple[Cell, ...]:
    ratio = paired_ratio(dense.samples_ns, one.samples_ns)
    ends = (Cell(ratio.low, f"{ratio.low:.2f}"), Cell(ratio.high, f"{ratio.high:.2f}"))
    speed = (MISSING,) * 4 if one is dense else (cells.interval(ratio), *ends, cells.word(ratio.verdict))
    return (
        cells.time(median(one.samples_ns)),
        *speed,
        _loss(check, one),
        cells.size(one.peak_bytes),
        cells.number(len(one.samples_ns)),
        cells.word(""),
    )


def _loss(check: Check, one: Timing) -> Cell:
    """Return what the side loses; naive factors lose what the same factors lose."""
    side = check.side("narrows" if one.side == "naive" else one.side)
    if side.language is not None and side.language.ratio is not None:
        return Cell(side.language.ratio.value, f"{side.language.ratio.value:.4f}")
    if side.encoder is not None and side.encoder.similarity is not None:
        return Cell(side.encoder.similarity.value, f"{side.encoder.similarity.value:.4f}")
    return MISSING


def _speed_note(check: Check) -> str:
    parts = (
        "Speedup: dense time / time, median over rounds in which every model runs once; ~ marks a tie.",
        f"Peak memory: {check.memory_source}.",
    )
    return " ".join(parts)


def doubts_check_table(check: Check) -> Table:
    """Return what speaks against the samples of each time, one sentence a row; there may be none."""
    columns = (cells.left("workload", "Workload"), cells.left("side", "Model"), cells.left("doubt", "Doubt"))
    rows = tuple(
        (cells.word(str(one.workload)), cells.word(SIDES[one.side]), cells.word(doubt))
        for one in check.timings
        for doubt in doubts(one.samples_ns)
    )
    return Table("doubts", "What speaks against these times", columns, rows)


def storage_table(check: Check) -> Table:
    """Return what every side stores: in place of the block linears, in all, and on disk."""
    columns = (
        cells.left("side", "Model"),
        Column("numbers", "Numbers"),
        Column("kept", "Kept"),
        Column("kept_bytes", "Block linears"),
        Column("weight_bytes", "All weights"),
        Column("disk_bytes", "On disk"),
        cells.left("missing", "Not shown"),
    )
    dense = check.side("dense").numbers
    rows = tuple(
        (
            cells.word(SIDES[side.name]),
            MISSING if side.numbers is None else cells.number(side.numbers),
            MISSING if not side.numbers or not dense else Cell(side.numbers / dense, f"{side.numbers / dense:.1%}"),
            cells.size(side.kept_bytes),
            cells.size(side.weight_bytes),
            cells.size(side.disk_bytes),
            cells.word(side.missing),
        )
        for side in check.sides
    )
    note = "Numbers and bytes of the block linears are of their weights, without biases; on disk: files of weights."
    return Table("storage", "What is stored", columns, rows, note)


def sample_table(check: Check) -> Table:
    """Return what both models write after the same prompt."""
    assert check.sample is not None
    columns = (cells.left("side", "Model"), cells.left("text", "Text"))
    rows = (
        (cells.word("prompt"), cells.word(check.sample.prompt)),
        (cells.word(SIDES["dense"]), cells.word(check.sample.dense)),
        (cells.word(SIDES["narrows"]), cells.word(check.sample.compressed)),
    )
    return Table("sample", "A sample, always the likeliest token", columns, rows)
