"""`narrows measure`: the origin's experiment, or any other, on this machine; progress, resumable."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import click

from narrows.cli._interrupt import going_on
from narrows.cli._output import emit, output_options
from narrows.cli._ranges import parse_range, parse_shape, parse_words
from narrows.errors import InputError, NarrowsError, RankError, ResourceError

if TYPE_CHECKING:
    from narrows._values import Experiment, Report, WeightSource

PRODUCT_RANK = 128


EXAMPLE = """\b
Example:
  narrows measure --shape 256x256 --tokens 64,128 --rank 16..64 --minutes 0.1 -o report.json
"""


@click.command(epilog=EXAMPLE, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("--shape", metavar="DxE", help="Input and output features of a made weight, e.g. 4096x14336.")
@click.option("--weight", metavar="FILE:TENSOR", help="A real weight, (E, D) as in nn.Linear.")
@click.option("--weight-right", metavar="FILE:TENSOR", help="Second operand (key): the weight is right^T weight.")
@click.option("--input", "activations", metavar="FILE:TENSOR", help="Real activations, (N, D), N >= the largest T.")
@click.option(
    "--layout", type=click.Choice(["out-in", "in-out"]), default="out-in", help="Of the weights in their files."
)
@click.option("--tokens", metavar="RANGE", default="64..4096", show_default=True, help="Sequence lengths T.")
@click.option("--rank", metavar="RANGE", help="Middle dimensions. Default: doubling from 64 (or 16) to min(D, E).")
@click.option(
    "--kind",
    type=click.Choice(["bilinear", "linear"]),
    help="Default: linear for one --weight or D != E, else bilinear.",
)
@click.option("--heads", type=click.IntRange(min=1), default=1, show_default=True, help="Heads of a product.")
@click.option("--kv-heads", type=click.IntRange(min=1), help="Key heads that the heads share. Default: --heads.")
@click.option(
    "--dtype", default="float32", show_default=True, help="float32, bfloat16, float16 (fp32, bf16, fp16) or float64."
)
@click.option("--mode", default="eager", show_default=True, help="eager, graph (CUDA graph), or both: eager,graph.")
@click.option("--cache", default="hot", show_default=True, help="hot, cold, or both: hot,cold.")
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda or cuda:1.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of made weights and inputs.")
@click.option("--minutes", type=float, default=8.0, show_default=True, help="Time to sample, earlier runs included.")
@click.option("--store", type=click.Path(path_type=Path), help="SQLite file. Default: one for this user.")
@click.option("--fresh", is_flag=True, help="Forget what the store holds of this experiment first.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write the report (JSON) here.")
@output_options
@going_on("everything measured so far")
def command(*, output: Path | None, output_format: str, **options: object) -> None:
    """Measure time, memory and error of thin chains beside dense.

    Without arguments: S = (X W) X^T against S = (X A)(X B)^T at d = 4096, for three weights. A run that
    was stopped continues where it was; nothing is measured twice.

    \b
    RANGE: A..B doubles from A through B; commas list values.
    """
    if output is not None:
        _check_output(output)
    report = _measure(options)
    if output is not None:
        _write(output, report)
    from narrows.reporting import best_table, weights_table

    emit([best_table(report), weights_table(report)], output_format)
    _say_what_is_too_fast(report)
    _say_what_has_no_time(report)


def _check_output(output: Path) -> None:
    """Refuse a path that could not be written, before hours are spent."""
    from narrows._files import check_target

    if output.is_dir():
        raise InputError(f"--output={output} is a folder. Give a file in it, e.g. {output / 'report.json'}.")
    if not output.absolute().parent.is_dir():
        raise InputError(f"--output={output}: its folder does not exist. Make it first: nothing was measured yet.")
    check_target(output)


def _write(output: Path, report: Report) -> None:
    from narrows._files import write_text_atomic

    try:
        write_text_atomic(output, report.to_json())
    except NarrowsError:
        click.echo("everything measured is kept: run the same command with another -o FILE.", err=True)
        raise
    click.echo(f"wrote {output}: narrows show {output}", err=True)


def _say_what_is_too_fast(report: Report) -> None:
    """Say that the run's self-check failed: a row beat its limit, so a ceiling or a count is wrong."""
    from narrows._stats import too_fast

    found = too_fast(report)
    if found:
        top = max(found, key=lambda c: c.share or 0.0)
        where = f"{top.row.tokens} tokens, {'dense' if top.row.is_dense else f'rank {top.row.rank}'} {top.row.variant}"
        click.echo(
            f"self-check failed: {len(found)} rows are faster than their limit, most of all {where} with "
            f"{top.share:.0%} of it. Do not trust shares here; --fresh measures the ceilings again.",
            err=True,
        )


def _say_what_has_no_time(report: Report) -> None:
    """Count the rows without a time and name one reason for each status; none with a time is an error."""
    reasons = {row.status: row.reason for row in reversed(report.rows) if row.status != "ok"}
    if not reasons:
        return
    counts = Counter(row.status for row in report.rows)
    found = "; ".join(f"{counts[status]} {status} ({reason})" for status, reason in reasons.items())
    text = f"{len(report.rows) - counts['ok']} of {len(report.rows)} rows have no time: {found}."
    if not counts["ok"]:
        raise ResourceError(text)
    click.echo(text, err=True)


def _measure(options: dict[str, object]) -> Report:
    from narrows.bench import run_experiment
    from narrows.cli._progress import progress_bar

    experiment = _experiment(options)
    store, minutes, fresh = options["store"], options["minutes"], options["fresh"]
    assert store is None or isinstance(store, Path)
    assert isinstance(minutes, float)
    with progress_bar() as show:
        return run_experiment(experiment, store=store, minutes=minutes, progress=show, fresh=bool(fresh))


def _place(text: object, name: str) -> tuple[str, str]:
    """Split FILE:TENSOR; an .npy file holds one array and needs no tensor name."""
    if any("\ud800" <= letter <= "\udfff" for letter in str(text)):
        raise InputError(f"{name}={text!r} is not valid UTF-8: a report could not hold it. Rename the file.")
    path, colon, tensor = str(text).rpartition(":")
    if not colon and str(text).endswith(".npy"):
        return str(text), ""
    if not colon or not path or not tensor:
        raise InputError(f"{name}={text!r} must be FILE:TENSOR, e.g. model.safetensors:layers.0.mlp.up_proj.weight.")
    return path, tensor


def _default_ranks(max_rank: int) -> tuple[int, ...]:
    first = 64 if max_rank >= 256 else min(16, max_rank)
    ranks = [first]
    while ranks[-1] * 2 <= max_rank:
        ranks.append(ranks[-1] * 2)
    return tuple(ranks)


def _weights(options: dict[str, object]) -> tuple[tuple[WeightSource, ...], int, int]:
    """Return the weights and (D, E): one real weight, or three made ones side by side."""
    from dataclasses import replace

    from narrows._values import WeightSource

    for option in ("heads", "kv_heads"):
        if int(str(options[option] or 1)) > 1 and options["weight_right"] is None:
            flag = f"--{option.replace('_', '-')}"
            raise InputError(f"{flag}={options[option]} needs a product: give --weight and --weight-right (keys).")
    if options["weight"] is None:
        if options["weight_right"] is not None:
            raise InputError(f"--weight-right={options['weight_right']} needs --weight, the left operand, too.")
        D, E = parse_shape(options["shape"])
        inner = min(PRODUCT_RANK, max(min(D, E) // 2, 1))
        made = (
            WeightSource("gaussian", "gaussian"),
            WeightSource("power-law 0.7", "power", exponent=0.7),
            WeightSource(f"product of rank {inner}", "product", inner=inner),
        )
        return made, D, E
    if options["shape"] is not None:
        raise InputError(f"--shape={options['shape']} and --weight exclude each other: the file gives the shape.")
    from narrows.bench import file_shapes

    path, tensor = _place(options["weight"], "--weight")
    right = _place(options["weight_right"], "--weight-right") if options["weight_right"] else ("", "")
    source = WeightSource(
        tensor or Path(path).stem,
        "file",
        path=path,
        tensor=tensor,
        right_path=right[0],
        right_tensor=right[1],
        layout=options["layout"],  # type: ignore[arg-type]
    )
    heads, kv_heads = int(str(options["heads"])), int(str(options["kv_heads"] or 0))
    D, E, inner = file_shapes(source, heads=heads, kv_heads=kv_heads)
    return (replace(source, inner=inner) if inner else source,), D, E


def _experiment(options: dict[str, object]) -> Experiment:
    from narrows._values import CACHES, MODES, Experiment

    tokens = parse_range(str(options["tokens"]), "--tokens")
    wanted = None if options["rank"] is None else parse_range(str(options["rank"]), "--rank")
    modes = parse_words(options["mode"], MODES, "--mode")
    caches = parse_words(options["cache"], CACHES, "--cache")
    weights, D, E = _weights(options)
    product = options["weight_right"] is not None
    kind = options["kind"] or ("linear" if (options["weight"] and not product) or D != E else "bilinear")
    max_rank = min(weights[0].inner, D, E) if product else min(D, E)
    if product and wanted and wanted[-1] > max_rank:
        raise RankError(
            f"--rank={options['rank']}: {wanted[-1]} is above {max_rank}, the most that --weight and --weight-right "
            "give (their rows a head)."
        )
    activations = _place(options["activations"], "--input") if options["activations"] else ("", "")
    return Experiment(
        kind=kind,  # type: ignore[arg-type]
        in_features=D,
        out_features=E,
        tokens=tokens,
        ranks=wanted or _default_ranks(max_rank),
        weights=weights,
        dtype=str(options["dtype"]),
        device=str(options["device"]),
        modes=modes,  # type: ignore[arg-type]
        caches=caches,  # type: ignore[arg-type]
        heads=int(str(options["heads"])),
        kv_heads=int(str(options["kv_heads"] or 0)),
        input_path=activations[0],
        input_tensor=activations[1],
        seed=int(str(options["seed"])),
    )
