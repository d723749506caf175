"""Documents that narrows writes and reads again: reports, plans, checks, times, choices; also through its verbs."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

from narrows._cost import dense_cost, thin_cost
from narrows._values import (
    Budget,
    Ceilings,
    Experiment,
    Machine,
    ModelBudget,
    ModelPlan,
    OutputError,
    Plan,
    Report,
    Row,
    WeightRecord,
    WeightSource,
    Workload,
)
from narrows._values._check import Check, CheckedSide, Estimate, Judgement, LanguageQuality, Timing
from narrows._values._json import seal_of
from narrows._values._model_plan import LayerChoice, LayerOption
from narrows.bench._layers_record import LayerTime, LayerTimes
from narrows.kernels._config import Config, Tiles
from narrows.kernels.tuned._records import Candidate, Entry, Silicon, Software, Tuning
from narrows.planning import choose
from soak.files.change import Change
from soak.files.json import changed_json
from soak.files.subject import Subject

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path
    from random import Random

REPORT = "report.json"
ROUNDS, SIZE, TOKENS, RANKS = 9, 64, (8, 16), (8, 16)
SILICON = Silicon("A GPU", "sm_90", 132, 60 << 20, 140)
SOFTWARE = Software("2.11.0", "3.6.0", "13.0", "580.1", "0123456789abcdef")


def subjects() -> list[Subject]:
    """Return the kinds of documents."""
    kinds: list[tuple[str, float, Callable[[int], Any]]] = [
        (REPORT, 0.06, report),
        ("plan.json", 0.03, plan),
        ("model-plan.json", 0.03, model_plan),
        ("check.json", 0.02, check),
        ("layer-times.json", 0.02, layer_times),
        ("choices.json", 0.02, choices),
    ]
    return [_subject(name, name, share, make, _reader(name, type(make(1)))) for name, share, make in kinds]


def verbs() -> list[Subject]:
    """Return the verbs that read a report, run in this process on the whole command line."""
    lines: dict[str, tuple[str, ...]] = {
        "show": ("show", "{file}", "--error", "0.05"),
        "show-json": ("show", "{file}", "--json"),
        "show-md": ("show", "{file}", "--md"),
        "choose": ("choose", "{file}", "--error", "0.9"),
        "compare": ("compare", "{file}", "{file}"),
    }
    return [_subject(f"narrows-{name}", REPORT, 0.006, report, verb(REPORT, words)) for name, words in lines.items()]


def _subject(name: str, file: str, share: float, make: Callable[[int], Any], read: Callable[[Path], str]) -> Subject:
    first, second = (make(seed).to_json().encode() for seed in (1, 2))
    return Subject(
        name=name,
        share=share,
        files={file: first},
        others={file: second},
        read=read,
        is_sealed=True,
        forge=forged,
        bits={file: ()} if name == file else {},  # the last digit of a number may mean nothing
    )


def forged(files: Mapping[str, bytes], rng: Random) -> Change:
    """Change a document and seal it anew."""
    ((name, data),) = files.items()
    fields = json.loads(data)
    del fields["sha256"]
    said, text = changed_json(json.dumps(fields).encode(), rng)
    try:
        made = json.dumps({**json.loads(text), "sha256": seal_of(json.loads(text))}).encode()
    except (ValueError, TypeError, RecursionError):  # nothing that could be sealed
        made = text
    return Change(f"{name}, sealed again: {said}", {name: made}, may_differ=True)


def _reader(name: str, kind: Any) -> Callable[[Path], str]:
    """Return what reads a document as narrows does."""
    if kind is Report:
        from narrows.cli._input import read_report

        return lambda folder: repr(read_report(folder / name))
    from narrows._files import read_file

    return lambda folder: repr(kind.from_json(read_file(folder / name), source=str(folder / name)))


def verb(name: str, words: tuple[str, ...]) -> Callable[[Path], str]:
    """Return what runs a verb on a file of a folder; its errors come as the command prints them."""

    def run(folder: Path) -> str:
        from click.testing import CliRunner

        from narrows.cli._main import command
        from narrows.errors import FileError

        file = str(folder / name)
        done = CliRunner().invoke(command, [file if word == "{file}" else word for word in words])
        if done.exit_code in {0, 1} and not done.stderr.startswith("error: "):
            return str(done.stdout)
        if "fault in narrows" in done.stderr or not isinstance(done.exception, SystemExit):
            raise AssertionError(f"{done.exception!r}: {done.stderr}")
        raise FileError(done.stderr.strip().rpartition("error: ")[2])

    return run


def report(seed: int) -> Report:
    """Return a report of a chain that is faster at small ranks, with every table's fields filled."""
    experiment = Experiment(
        kind="bilinear",
        in_features=SIZE,
        out_features=SIZE,
        tokens=TOKENS,
        ranks=RANKS,
        weights=(WeightSource("gaussian", "gaussian"),),
        seed=seed,
    )
    sides: list[tuple[int | None, str]] = [(None, "left"), (None, "right")]
    sides += [(rank, variant) for rank in RANKS for variant in ("three", "two")]
    return Report(
        experiment=experiment,
        machine=Machine(
            "f" * 16, "cpu", "A CPU", 2, 2, {"L3": 32 << 20}, ("avx2",), 8 << 30, software={"torch": "2.13"}
        ),
        ceilings=Ceilings("float32", 2e10, 1e10, 8e10, 4e10, 2.5e10, 1.5e11, (64, 64, 64), 2000.0, 0.0, 32 << 20),
        weights=(_weight(seed),),
        errors=tuple(OutputError("gaussian", t, r, 0.5, 1e-7, 0.5, 0.55) for t in TOKENS for r in RANKS),
        rows=tuple(_row(experiment, tokens, rank, variant) for tokens in TOKENS for rank, variant in sides),
        created="2026-01-02T03:04:05Z",
        version="0.1.0",
        inputs=f"recipe 1 normal seed {seed}",
        conditions={"load average": "0.10"},
    )


def _weight(seed: int) -> WeightRecord:
    sigma = tuple((i + seed) ** -0.7 for i in range(1, max(RANKS) + 1))
    return WeightRecord("gaussian", "0" * 64, "exact", sigma, dict.fromkeys(RANKS, 0.5), 0.4, 0.01)


def _row(experiment: Experiment, tokens: int, rank: int | None, variant: str) -> Row:
    cost = (
        dense_cost(experiment.problem(tokens), variant) if rank is None else thin_cost(experiment.problem(tokens), rank)
    )
    time_ns = 1e4 * tokens if rank is None else 1e3 * tokens * (1 + rank / SIZE)
    samples = tuple(time_ns * (1 + 0.002 * math.sin(i + (rank or 0))) for i in range(ROUNDS))
    return Row(
        tokens=tokens,
        rank=rank,
        variant=variant,
        mode="eager",
        cache="hot",
        status="ok",
        samples_ns=samples,
        rounds=tuple(range(ROUNDS)),
        launches=3,
        flops=cost.flops,
        bytes_read=cost.bytes_read,
        bytes_written=cost.bytes_written,
        limit_ns=time_ns / 2,
        memory_bytes=cost.memory_bytes,
        peak_memory_bytes=cost.memory_bytes,
        rounding=2e-7,
        worst=0.1,
    )


def plan(seed: int) -> Plan:
    """Return the plan that this report leads to."""
    return choose(report(seed), Budget(error=0.9))


def model_plan(seed: int) -> ModelPlan:
    """Return a plan of one layer."""
    dense, thin = (
        LayerOption("dense", None, 4096, 16384, 0.0, 2e4),
        LayerOption("low-rank", 8, 1024, 4096, 0.01, 1e4, True),
    )
    layer = LayerChoice("layers.0.q_proj", SIZE, SIZE, thin, dense, f"cheapest of {seed + 1}")
    budget, workloads = ModelBudget(perplexity=0.01, keep=0.9), (Workload("prefill", 64),)
    return ModelPlan((layer,), budget, workloads, "float32", "two-sided", 1e6, "f" * 16, "A CPU", "0.1.0")


def check(seed: int) -> Check:
    """Return a check whose budget is met."""
    ratio = Estimate(1.0 + seed / 1000, 1.0, 1.01)
    return Check(
        model="dense",
        folder="out",
        kind="causal",
        dtype="float32",
        device_name="A CPU",
        fingerprint="f" * 16,
        version="0.1.0",
        text=None,
        sides=(
            CheckedSide("dense", language=LanguageQuality(23.4)),
            CheckedSide("narrows", language=LanguageQuality(23.5, ratio)),
        ),
        timings=(Timing(Workload("prefill", 64), "dense", (1e6, 1.1e6), None),),
        sample=None,
        budget=ModelBudget(perplexity=0.01),
        judgements=(Judgement("perplexity", 0.01, ratio, "met", "1.0010 is below 1.01"),),
        memory_source="the system's",
    )


def layer_times(seed: int) -> LayerTimes:
    """Return times of one layer, dense and at a rank."""
    dense, thin = (
        LayerTime(SIZE, SIZE, "dense", None, 16, 1e4 * seed),
        LayerTime(SIZE, SIZE, "low-rank", 8, 16, 5e3, 2.0, 1.9, 2.1),
    )
    return LayerTimes((dense, thin), "float32", "cpu", "f" * 16, "A CPU", "0.1.0")


def choices(seed: int) -> Tuning:
    """Return the choices of a device for two lengths."""
    return Tuning(SILICON, tuple(entry(tokens, seed) for tokens in (64, 128)), "0.1.0")


def entry(tokens: int, seed: int) -> Entry:
    """Return a choice in which an own kernel is twice as fast as cuBLAS."""
    config = Config(Tiles(16, 64, 64, split=4), Tiles(16, 32, 64))
    base = Candidate(None, 1e4 * seed, 1.0, 1.0, 1.0, 8, 0.5, True)
    own = Candidate(config, 5e3, 2.0, 1.99, 2.01, 8, 0.5, True)
    found = {"two": base, "triton": own}
    return Entry("bilinear", tokens, 0, 4096, 4096, 64, 1, "bfloat16", "graph", found, SOFTWARE, "2026-01-02T03:04:05Z")
