"""`narrows check`: a compressed model beside its dense one, in quality, speed and memory."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from narrows.cli._output import emit, output_options
from narrows.cli._steps import quiet_libraries, steps

if TYPE_CHECKING:
    from narrows._values._check import Check

EXAMPLE = """\b
Example:
  narrows check smollm2-narrow --against smollm2 --workload prefill:2048x1 --workload decode:512x1
  narrows check smollm2-narrow --against smollm2 --texts other.jsonl --device cuda -o check.json --html check.html
"""


@click.command(epilog=EXAMPLE, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--against", type=click.Path(path_type=Path), required=True, metavar="MODEL", help="The dense model.")
@click.option(
    "--texts",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="A .txt or .jsonl file, or a folder of them. Default: the part of OUT's own text that was kept for checks.",
)
@click.option("--windows", type=int, default=64, show_default=True, help="Windows of 512 tokens (encoders: documents).")
@click.option(
    "--workload",
    "workloads",
    multiple=True,
    metavar="WORKLOAD",
    help="What is timed: prefill:TOKENSxBATCH or decode:CONTEXTxBATCH; repeat for more. Default: those of OUT's plan.",
)
@click.option("--pairs", type=click.Path(path_type=Path), metavar="FILE", help="Encoders: word1, word2, score (TSV).")
@click.option("--labels", type=click.Path(path_type=Path), metavar="FILE", help='Encoders: "text" and "label" (JSONL).')
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda or cuda:1.")
@click.option("--dtype", metavar="NAME", help="float32, bfloat16 or float16 (fp32, bf16, fp16). Default: as saved.")
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="FILE", help="Write the check (JSON) here.")
@click.option(
    "--html", type=click.Path(path_type=Path), metavar="FILE", help="Write charts and tables as one page here."
)
@output_options
def command(
    *,
    out: Path,
    against: Path,
    workloads: tuple[str, ...],
    output: Path | None,
    html: Path | None,
    output_format: str | None,
    **options: object,
) -> None:
    """Measure what the compressed model OUT loses and gains against MODEL, and judge OUT's budget.

    Perplexity and divergence on the same text, paired by document (encoders: similarity of embeddings); a sample;
    time and peak memory at each workload; what is stored. Beside them stand MODEL with int8 weights (torchao) and
    the factors of OUT as plain torch layers.

    Exits 1 when a part of the budget is broken beyond doubt; where an interval holds the limit it says "cannot tell".
    """
    from narrows._files import check_target
    from narrows._values import Workload

    asked = [Workload.parse(text) for text in workloads] or None
    for path in (output, html):
        if path is not None:
            check_target(path)
    quiet_libraries()
    from narrows.models._check import check

    with steps() as show:
        found = check(out, against, workloads=asked, progress=show, **options)  # type: ignore[arg-type]
    if output is not None:
        _write(found.to_json() + "\n", output)
    if html is not None:
        from narrows.reporting import checks_document

        _write(checks_document([found]), html)
    _print(found, output_format)
    if found.is_broken:
        click.get_current_context().exit(1)


def _print(found: Check, output_format: str | None) -> None:
    from narrows.reporting import check_tables, speed_check_table

    emit(speed_check_table(found) if output_format == "csv" else check_tables(found), output_format)


def _write(text: str, path: Path) -> None:
    from narrows._files import write_text_atomic

    write_text_atomic(path, text)
    click.echo(f"wrote {path}", err=True)
