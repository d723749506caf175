"""What does not fit the memory: refused before it is tried where that is known, survived where it is not.

Files are four times as large as this machine's memory; else a forked child gets room for so many more bytes of
addresses (RLIMIT_AS), as a batch system gives them.
"""

from __future__ import annotations

import json
import math
import resource
import struct
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from soak.concurrency.children import stand_in
from soak.crashes.case import called, tests_module
from soak.crashes.child import Answer, run
from soak.crashes.measure import Here

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

ROOM = 512 << 20  # bytes that the child may still take
MODEL_ROOM = 320 << 20  # for calibrating a model whose moments take more
SPARED = 192 << 20  # bytes: what was refused in time took no more; libraries at their first use take up to 130 MiB
SMALL, WIDE = 32, 40_000  # features
LONG = 16_384  # tokens whose scores take 1 GiB
NOT_DONE = 3
MODEL, DENSE, WEIGHTS, TEXTS = "giant", "wide", "weights.safetensors", "texts.jsonl"
WEIGHT = ("--weight", f"{{folder}}/{WEIGHTS}:giant", "--tokens", "8", "--rank", "4")
SHAPE = ("--shape", f"{WIDE}x{WIDE}", "--tokens", "8", "--rank", "4")
LENGTH = ("--shape", "16x16", "--tokens", f"8,{LONG}", "--rank", "2")


@dataclass(frozen=True, slots=True)
class Case:
    """Something that does not fit.

    Attributes:
        name: in words.
        call: gets the folder of `made`; returns the exit code and what was said.
        code: that it must end with.
        says: parts of what it must say; {folder} stands for that folder.
        room: bytes of addresses that it may still take; None: this machine's memory is the limit.
    """

    name: str
    call: Callable[[Path], Answer]
    code: int
    says: tuple[str, ...]
    room: int | None = None


def made(place: Path) -> Path:
    """Return a folder with files whose tensors are too large; they are sparse and take no room on the disk."""
    from narrows._machine._memory import total_bytes

    folder = place / "giants"
    folder.mkdir()
    giant = math.isqrt(total_bytes())  # squared, in float32: four times the memory
    _sparse(folder / WEIGHTS, {"giant": (giant, giant), "small": (SMALL, SMALL)})
    tiny = tests_module("tiny_models")
    tiny.folder(tiny.llama(), folder / MODEL)
    _widen(folder / MODEL, total_bytes())
    tiny.folder(tiny.llama(num_hidden_layers=1, intermediate_size=4096), folder / DENSE)
    lines = [json.dumps({"text": text}) for text in tiny.texts(12, 60)]
    (folder / TEXTS).write_text("\n".join(lines), encoding="utf-8")
    return folder


def refused(name: str, folder: Path, *, is_blind: bool) -> list[str]:
    """Return what is wrong with how something that does not fit was refused, or survived.

    Args:
        name: of the case.
        folder: from `made`.
        is_blind: the free memory is told wrong, so that it is tried.
    """
    return _faults((UNTOLD if is_blind else FORETOLD)[name], folder, is_blind=is_blind)


def planted(folder: Path) -> list[str]:
    """Return what is found wrong with something that takes twice what is allowed, and says that all is well."""

    def take(_: Path) -> Answer:
        held = bytearray(b"x" * (2 * SPARED))
        return Answer(0, "fine" if held else "")

    return _faults(Case("planted", take, NOT_DONE, (FREE,)), folder, is_blind=False)


def _faults(case: Case, folder: Path, *, is_blind: bool) -> list[str]:
    ended = run(partial(_limited, case, folder, is_blind))
    if ended.answer is None or ended.status:
        return [f"{case.name}: ended with {ended.status}: {ended.answer}"]
    code, said, taken = json.loads(ended.answer.said)
    faults = [] if code == case.code else [f"ended with {code}, not {case.code}: {said[-400:]}"]
    parts = [part.format(folder=folder) for part in case.says]
    faults += [f"does not say {part!r}: {said[-400:]}" for part in parts if part not in said]
    if "fault in narrows" in said or "Traceback" in said:
        faults.append(f"is not one clear error: {said[-400:]}")
    if not is_blind and taken > SPARED:
        faults.append(f"took {taken / 2**20:.0f} MiB before it was refused")
    return [f"{case.name}: {one}" for one in faults]


def _limited(case: Case, folder: Path, is_blind: bool, _: object) -> Answer:
    from narrows._machine import _memory
    from narrows.bench import _facts, _sweep

    stand_in(_sweep, Worker=Here)
    if is_blind:
        for place in (_memory, _facts):
            stand_in(place, available_bytes=lambda *_: 1 << 60)
    if case.room is not None:
        resource.setrlimit(resource.RLIMIT_AS, (status_bytes("VmSize") + case.room,) * 2)
    resident = status_bytes("VmRSS")
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    answer = case.call(folder)
    return Answer(0, json.dumps([answer.code, answer.said, max(status_bytes("VmHWM") - resident, 0)]))


def _widen(folder: Path, num_bytes: int) -> None:
    """Give a saved model so many tokens that its embeddings take four times these bytes."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["vocab_size"] = num_bytes // config["hidden_size"]
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    from narrows._files import tensor_shapes

    shapes = tensor_shapes(folder)
    embeddings = {"model.embed_tokens.weight": (config["vocab_size"], config["hidden_size"])}
    _sparse(folder / "model.safetensors", {**shapes, **embeddings})


def _sparse(path: Path, shapes: dict[str, tuple[int, ...]]) -> None:
    """Write a safetensors file of float32 whose numbers are a hole in the file: zeros that nobody stores."""
    end, header = 0, {}
    for name, shape in shapes.items():
        begin, end = end, end + 4 * math.prod(shape)
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + end)


def status_bytes(field: str) -> int:
    """Return a kB field of this process's status: VmSize, VmRSS (now) or VmHWM (high-water mark)."""
    text = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    return next(int(line.split()[1]) for line in text.splitlines() if line.startswith(f"{field}:")) * 1024


def _tried(work: Callable[[], Any]) -> Answer:
    from narrows.cli._main import _message, exit_code

    try:
        work()
    except Exception as fault:  # noqa: BLE001 (as the last door of the command)
        return Answer(exit_code(fault), _message(fault))
    return Answer(0, "")


def _load(folder: Path) -> Answer:
    from narrows import load

    return _tried(lambda: load(folder / MODEL))


def _factorize(_: Path) -> Answer:
    import torch

    from narrows import factorize

    weight = torch.zeros(4096, 4096, dtype=torch.float16)
    return _tried(lambda: factorize(weight))


def _measure(folder: Path, words: Sequence[str]) -> Answer:
    with tempfile.TemporaryDirectory() as place:
        asked = [word.format(folder=folder) for word in words]
        return called(["measure", *asked, "--minutes", "60", "--store", f"{place}/store.sqlite"])


def _spectrum(folder: Path, layer: str = "") -> Answer:
    return called(["spectrum", str(folder / WEIGHTS), *(["--layer", layer] if layer else [])])


def _compress(folder: Path) -> Answer:
    with tempfile.TemporaryDirectory() as place:
        where = (str(folder / DENSE), f"{place}/out", "--texts", str(folder / TEXTS), "--work", f"{place}/work")
        return called(["compress", *where, "--budget", "keep=0.8", "--context", "32", "--calibration-tokens", "256"])


FREE = "GiB are free"
_FORETOLD = (
    Case("load", _load, NOT_DONE, (f"the model {{folder}}/{MODEL} takes ", FREE)),
    Case("spectrum of a file", _spectrum, 0, (f"passed over giant: tensor 'giant' of {{folder}}/{WEIGHTS}", FREE)),
    Case(
        "spectrum of a layer", partial(_spectrum, layer="giant"), NOT_DONE, ("giant: tensor 'giant' of {folder}", FREE)
    ),
    Case("measure of a weight", partial(_measure, words=WEIGHT), NOT_DONE, ("tensor 'giant' of {folder}", FREE)),
    Case("measure of a shape", partial(_measure, words=SHAPE), NOT_DONE, ("weight gaussian (", FREE), room=ROOM),
    Case(
        "measure of a length",
        partial(_measure, words=LENGTH),
        0,
        ("4 of 8 rows have no time: 4 does not fit", FREE),
        ROOM,
    ),
    Case("factorize", _factorize, NOT_DONE, ("factorising a weight (4096, 4096) in float64 takes ", FREE), ROOM),
    Case("compress", _compress, NOT_DONE, ("what calibration holds at a time, the moments of ", FREE), MODEL_ROOM),
)
# The free memory is told wrong, so that these are tried.
_UNTOLD = (
    Case("load", _load, NOT_DONE, ("{folder}", "did not fit the free memory"), ROOM),
    Case("spectrum of a file", _spectrum, NOT_DONE, ("{folder}", "did not fit the free memory"), ROOM),
    Case("measure of a weight", partial(_measure, words=WEIGHT), NOT_DONE, ("{folder}", "did not fit"), ROOM),
    Case(
        "measure of a shape",
        partial(_measure, words=SHAPE),
        NOT_DONE,
        ("weight gaussian could not be factorised",),
        ROOM,
    ),
    Case("measure of a length", partial(_measure, words=LENGTH), 0, ("4 does not fit ", "you tried to allocate"), ROOM),
    Case("factorize", _factorize, NOT_DONE, ("factorising a weight (4096, 4096) in float64 did not fit",), ROOM),
    Case("compress", _compress, NOT_DONE, ("error: out of memory (",), MODEL_ROOM),
)
FORETOLD, UNTOLD = ({case.name: case for case in cases} for cases in (_FORETOLD, _UNTOLD))
