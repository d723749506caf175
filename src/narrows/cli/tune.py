"""`narrows tune`: measures implementations and their sizes on this device and keeps the choices."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from narrows.cli._interrupt import going_on
from narrows.cli._output import emit, output_options
from narrows.cli._ranges import parse_range, parse_shape, parse_words
from narrows.errors import FileError, InputError

if TYPE_CHECKING:
    from narrows.kernels.tuned import Known

EXAMPLE = """\b
Example:
  narrows tune --kind linear --shape 4096x14336 --tokens 1,16,64..4096 --rank 64,256
  narrows tune --show
  narrows tune --export choices.json
"""


@click.command(epilog=EXAMPLE, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("--shape", metavar="DxE", help="Input and output features. Default: 4096x4096.")
@click.option("--tokens", metavar="RANGE", default="64..8192", show_default=True, help="Numbers of tokens T.")
@click.option("--rank", metavar="RANGE", default="64..256", show_default=True, help="Middle dimensions.")
@click.option(
    "--kind", type=click.Choice(["bilinear", "linear"]), help="Default: both where D = E, else linear. Bilinear: Y = X."
)
@click.option("--dtype", default="bfloat16", show_default=True, help="bfloat16, float16 or float32 (bf16, fp16, fp32).")
@click.option("--mode", default="graph,eager", show_default=True, help="graph (CUDA graph), eager, or both.")
@click.option("--device", default="cuda", show_default=True, help="cuda or cuda:1.")
@click.option("--minutes", type=float, default=30.0, show_default=True, help="No further call is begun after these.")
@click.option("--again", is_flag=True, help="Measure also what was measured with these versions.")
@click.option("--show", is_flag=True, help="Show what is known of this device; measure nothing.")
@click.option("--export", type=click.Path(path_type=Path), metavar="FILE", help="Write the choices as JSON.")
@click.option("--import", "import_", type=click.Path(path_type=Path), metavar="FILE", help="Keep an export's choices.")
@click.option("--clear", is_flag=True, help="Delete every choice that was measured or imported.")
@output_options
def command(
    *,
    show: bool,
    clear: bool,
    export: Path | None,
    import_: Path | None,
    output_format: str | None,
    **options: object,
) -> None:
    """Measure what runs fastest on this GPU, for which calls, and keep the choices.

    Own kernels, each with its best sizes, race against cuBLAS; a wrong result disqualifies. `linear` and
    `bilinear` use the choices from then on. Without arguments: S = (X A)(X B)^T and y = (x A) B at 4096x4096.
    A run that was stopped keeps what it chose and goes on where it was.

    \b
    RANGE: A..B doubles from A through B; commas list values.
    NARROWS_TUNED=off in the environment: calls use only the choices that narrows brings.
    """
    if sum((show, clear, export is not None, import_ is not None)) > 1:
        raise InputError("--show, --export, --import and --clear exclude each other: give one.")
    if clear:
        _clear()
    elif export is not None:
        _export(export, str(options["device"]))
    elif import_ is not None:
        _import(import_, str(options["device"]))
    elif show:
        _show(str(options["device"]), output_format)
    else:
        _tune(options, output_format)


def _clear() -> None:
    from narrows.kernels import tuned

    path = tuned.default_path()
    count = tuned.clear(path)
    click.echo(f"{count} choices deleted from {path}", err=True)


def _show(device: str, output_format: str | None) -> None:
    from narrows.bench import device_index
    from narrows.kernels import tuned

    number = device_index(device)
    _emit(tuned.known(number), number, output_format)


def _emit(found: tuple[Known, ...], device: int, output_format: str | None) -> None:
    from narrows.kernels import tuned
    from narrows.reporting._tuned import choices_table

    emit(choices_table(found, tuned.silicon(device)), output_format)


def _export(path: Path, device: str) -> None:
    from narrows import __version__
    from narrows._files import write_text_atomic
    from narrows.bench import device_index
    from narrows.kernels import tuned

    silicon = tuned.silicon(device_index(device))
    contents = tuned.read(tuned.default_path(), silicon)
    if not contents.entries:
        raise InputError(f"there is nothing to export: no choice was measured on {silicon}. Run narrows tune first.")
    write_text_atomic(path, tuned.Tuning(silicon, contents.entries, __version__).to_json())
    click.echo(f"wrote {path}: {len(contents.entries)} choices for {silicon}", err=True)
    for fault in contents.faults:
        click.echo(f"left out, damaged: {fault}", err=True)


def _import(path: Path, device: str) -> None:
    from narrows._files import read_file
    from narrows.bench import device_index
    from narrows.kernels import tuned

    number = device_index(device)
    silicon, software = tuned.silicon(number), tuned.software(number)
    text = read_file(path, advice="Give a file of narrows tune --export.")
    tuning = tuned.Tuning.from_json(text, source=str(path))
    if tuning.silicon != silicon:
        raise FileError(
            f"{path} holds choices for {tuning.silicon}; this device is {silicon}. What is fastest there says little "
            "here: run narrows tune."
        )
    store = tuned.default_path()
    current = {e.signature(0) for e in tuned.read(store, silicon).entries if e.software == software}
    taken = [entry for entry in tuning.entries if entry.software == software or entry.signature(0) not in current]
    tuned.write(store, silicon, taken)
    stale = sum(entry.software != software for entry in taken)
    left = len(tuning.entries) - len(taken)
    rest = f"; {left} left out: there are current ones here" if left else ""
    done = f"{len(taken)} choices kept in {store}, {stale} of them stale (measured with other versions){rest}"
    click.echo(done, err=True)


@going_on("every choice made so far")
def _tune(options: dict[str, object], output_format: str | None) -> None:
    from narrows._values import MODES
    from narrows.bench import device_index, tune
    from narrows.cli._progress import progress_bar
    from narrows.kernels import tuned

    shape = parse_shape(options["shape"])
    kinds = [options["kind"]] if options["kind"] else ["bilinear", "linear"] if shape[0] == shape[1] else ["linear"]
    tokens, ranks = parse_range(str(options["tokens"]), "--tokens"), parse_range(str(options["rank"]), "--rank")
    minutes = options["minutes"]
    assert isinstance(minutes, float)
    with progress_bar() as show:
        entries = tune(
            shapes=[shape],
            tokens=tokens,
            ranks=ranks,
            kinds=kinds,  # type: ignore[arg-type]
            modes=parse_words(options["mode"], MODES, "--mode"),  # type: ignore[arg-type]
            dtype=str(options["dtype"]),
            device=str(options["device"]),
            minutes=minutes,
            again=bool(options["again"]),
            progress=show,
        )
    number = device_index(str(options["device"]))
    software = tuned.software(number)
    found = tuple(tuned.Known(each, "measured", each.software.differences(software)) for each in entries)
    _emit(found, number, output_format)
