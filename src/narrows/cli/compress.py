"""`narrows compress`: a model made smaller or faster within a budget, as a folder that loads; or the answer no."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from narrows.cli._budget import parse_budget
from narrows.cli._interrupt import going_on
from narrows.cli._output import emit, output_options
from narrows.cli._steps import quiet_libraries, steps
from narrows.errors import BudgetError, InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from narrows._values import ModelBudget, ModelPlan, ModelPoint
    from narrows._values._check import Estimate
    from narrows.models import Compression, Recipe
    from narrows.planning import ModelFrontierPoint

EXAMPLE = """\b
Example:
  narrows compress smollm2 smollm2-narrow --texts wikipedia.jsonl --budget keep=0.9
  narrows compress smollm2 fast --texts wikipedia.jsonl --budget speedup=1.1,ppl=20% --workload prefill:512x1
"""


@click.command(epilog=EXAMPLE, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option(
    "--budget",
    required=True,
    metavar="PARTS",
    help="What must hold, with commas: ppl=1% (growth of perplexity), keep=0.9 (numbers), speedup=1.2, bytes=100MB.",
)
@click.option(
    "--texts",
    required=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="A .jsonl or .txt file, or a folder: half calibrates, a part is measured on, the rest is left for check.",
)
@click.option(
    "--workload",
    "workloads",
    multiple=True,
    metavar="WORKLOAD",
    help="What is to be fast: prefill:TOKENSxBATCH or decode:CONTEXTxBATCH, with =WEIGHT if there are several.",
)
@click.option(
    "--layer", "patterns", multiple=True, metavar="NAME", help="Only these layers: a name or re:REGEX; repeat."
)
@click.option("--method", default="two-sided", show_default=True, help="two-sided or one-sided (no backward pass).")
@click.option(
    "--forms",
    default="low-rank,pivot",
    show_default=True,
    help="Which forms a layer may take beside dense; with shared, too: gate and up with one projection.",
)
@click.option(
    "--calibration-tokens", type=int, default=32768, show_default=True, metavar="N", help="Read to calibrate."
)
@click.option("--context", type=int, default=512, show_default=True, metavar="N", help="Tokens in one window of text.")
@click.option("--plain", is_flag=True, help="Do not fit each layer to the compressed layers before it.")
@click.option("--recover", type=float, default=0.0, metavar="MINUTES", help="Train afterwards, for at most so long.")
@click.option("--recover-blocks", is_flag=True, help="Let that training move what stayed dense in the blocks, too.")
@click.option("--autocast", metavar="NAME", help="Dtype of calibration's passes: bfloat16. Default: the model's.")
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda or cuda:1.")
@click.option("--dtype", metavar="NAME", help="float32, bfloat16 or float16. Default: as MODEL was saved.")
@click.option(
    "--seed", type=int, default=0, show_default=True, help="Of the split of the text and of all that is drawn."
)
@click.option(
    "--work", type=click.Path(path_type=Path), metavar="DIR", help="Keep calibration here. Default: the cache."
)
@click.option("--html", type=click.Path(path_type=Path), metavar="FILE", help="Write the plan and its charts here.")
@click.option("--dry-run", is_flag=True, help="Only say what it would take and gain at most; reads no weight.")
@output_options
@going_on("what was calibrated")
def command(
    *,
    model: Path,
    out: Path,
    budget: str,
    texts: Path,
    workloads: tuple[str, ...],
    patterns: tuple[str, ...],
    html: Path | None,
    dry_run: bool,
    output_format: str | None,
    **options: object,
) -> None:
    """Compress the model of folder MODEL into folder OUT, within a budget, or say that it cannot be done.

    Each linear layer in the blocks stays dense or takes a rank in one of the forms: the choice that the loss suffers
    least from. What the budget says of perplexity and speed is measured on the whole model, on text that calibration
    did not see; OUT is written only if it holds, and not where MODEL itself is the best answer ("stay dense").
    Stopped with Ctrl-C, the same command goes on where it was.

    Exits 1 when nothing meets the budget, and shows the frontier of what can be had.
    """
    from narrows._files import check_target
    from narrows._values import Workload, dtype_name

    if html is not None:
        check_target(html)
    wanted, asked = parse_budget(budget), tuple(Workload.parse(text) for text in workloads)
    quiet_libraries()
    recipe = _recipe(options)
    dtype = None if options["dtype"] is None else dtype_name(options["dtype"])
    given = {"workloads": asked, "recipe": recipe, "patterns": patterns, "device": options["device"], "dtype": dtype}
    if dry_run:
        _show_dry_run(model, wanted, given, output_format)
        return
    try:
        with steps() as show:
            done = _compress()(model, out, wanted, texts=texts, work=options["work"], progress=show, **given)
    except BudgetError as fault:
        _show_frontier(fault, output_format)
        _write_page(html, getattr(fault.nearest, "plan", None), getattr(fault.nearest, "frontier", ()), fault.nearest)
        raise
    _show(done, output_format)
    _write_page(html, done.plan, done.frontier, done)
    _say_where(done, model, out)


def _compress() -> Callable[..., Compression]:
    from narrows.models import compress

    return compress


def _recipe(options: dict[str, object]) -> Recipe:
    """Return the recipe that the options ask for."""
    from narrows._values import dtype_name
    from narrows.models import Recipe

    minutes = options["recover"]
    assert isinstance(minutes, float)
    if options["recover_blocks"] and not minutes:
        raise InputError("--recover-blocks needs --recover MINUTES.")
    return Recipe(
        method=str(options["method"]),  # type: ignore[arg-type]
        forms=tuple(word.strip() for word in str(options["forms"]).split(",")),  # type: ignore[misc]
        is_anchored=not options["plain"],
        calibration_tokens=options["calibration_tokens"],  # type: ignore[arg-type]
        context=options["context"],  # type: ignore[arg-type]
        recovery_seconds=60 * minutes,
        recovered="blocks" if options["recover_blocks"] else "factors",
        seed=options["seed"],  # type: ignore[arg-type]
        autocast=None if options["autocast"] is None else dtype_name(options["autocast"]),
    )


def _show_dry_run(model: Path, budget: ModelBudget, given: dict[str, object], output_format: str | None) -> None:
    """Print what it would take, and what could be gained."""
    from narrows.models import foreseen
    from narrows.reporting._foreseen import foreseen_table
    from narrows.reporting._model import model_budget_text

    found = foreseen(model, budget, **given)  # type: ignore[arg-type]
    emit(foreseen_table(found, budget=model_budget_text(budget)), output_format)


def _show(done: Compression, output_format: str | None) -> None:
    """Print what became of the model."""
    from narrows.reporting._model import frontier_table, model_plan_table, model_summary_table
    from narrows.reporting._model_unit import without_nats

    measured = _measured(done)
    tables = [model_summary_table(done.plan, measured), model_plan_table(done.plan), frontier_table(done.frontier)]
    emit(tables if done.is_in_nats else [without_nats(table) for table in tables], output_format)


def _write_page(path: Path | None, plan: ModelPlan | None, frontier: Sequence[ModelFrontierPoint], found: Any) -> None:
    """Write plan, frontier and what was measured, where that is asked for and there is a plan."""
    if path is None or plan is None:
        return
    from narrows._files import write_text_atomic
    from narrows.reporting import model_document

    write_text_atomic(path, model_document(plan, frontier, _points(plan, found)))
    click.echo(f"wrote {path}", err=True)


def _points(plan: ModelPlan, found: Any) -> list[ModelPoint]:
    """Return dense and the compressed model as measured; nothing where its quality was not."""
    from narrows._values import ModelPoint

    quality, speeds = found.quality, found.speeds
    if quality is None:
        return []
    dense_bytes = sum(one.dense.bytes for one in plan.layers)
    dense = ModelPoint("dense", 1.0, dense_bytes, perplexity=quality.dense)
    low, high = (None if end is None else end * quality.dense for end in (quality.ratio.low, quality.ratio.high))
    chosen = ModelPoint(
        f"keep {plan.kept:.3g}",
        plan.kept,
        plan.num_bytes,
        perplexity=quality.compressed,
        perplexity_low=low,
        perplexity_high=high,
        is_choice=True,
    )
    if speeds is None:
        return [dense, chosen]
    found = speeds.overall
    return [
        replace(dense, speedup=1.0, speedup_low=1.0, speedup_high=1.0),
        replace(chosen, speedup=found.value, speedup_low=found.low, speedup_high=found.high),
    ]


def _say_where(done: Compression, model: Path, out: Path) -> None:
    """Say what a reader should know, and where the answer is."""
    for line in done.not_changed:
        click.echo(f"left dense: {line}", err=True)
    for note in done.notes:
        click.echo(f"note: {note}", err=True)
    if done.is_dense:
        click.echo(
            f"stay dense: within this budget nothing smaller is better here. {out} was not written; use {model}.",
            err=True,
        )
    else:
        click.echo(f"wrote {out}", err=True)


def _measured(done: Compression) -> list[tuple[str, float | None, str]]:
    """Return what was measured of the compressed model: name, value and text."""
    found: list[tuple[str, float | None, str]] = []
    if done.quality is not None:
        found.append(("perplexity, dense", done.quality.dense, f"{done.quality.dense:.2f}"))
        found.append(("perplexity, compressed", done.quality.compressed, f"{done.quality.compressed:.2f}"))
        found.append(("perplexity / dense (95 %)", done.quality.ratio.value, _estimate(done.quality.ratio, ".4f")))
        divergence = done.quality.divergence
        found.append(("KL, nats a token (95 %)", divergence.value, _estimate(divergence, ".3g")))
    if done.similarity is not None:
        name = "cosine with dense embeddings (95 %)"
        found.append((name, done.similarity.value, _estimate(done.similarity, ".4f")))
    if done.speeds is not None:
        for name, speed in done.speeds.by_workload.items():
            text = f"{speed.value:.3f}x [{speed.low:.3f}, {speed.high:.3f}]"
            found.append((f"speedup at {name} (99 %)", speed.value, text))
    return found


def _estimate(one: Estimate, spec: str) -> str:
    """Return a value with its interval where there is one."""
    ends = "" if one.low is None else f" [{one.low:{spec}}, {one.high:{spec}}]"
    return f"{one.value:{spec}}{ends}"


def _show_frontier(fault: BudgetError, output_format: str | None) -> None:
    """Print what can be had, where that is known."""
    points = getattr(fault.nearest, "frontier", ())
    if points:
        from narrows.reporting._model import frontier_table
        from narrows.reporting._model_unit import without_nats

        table = frontier_table(points)
        emit(table if fault.nearest.is_in_nats else without_nats(table), output_format)  # type: ignore[attr-defined]
