"""Optional packages, each hidden in fresh processes: what does not need it works, what does says what to install."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from soak.supply import hide

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

ROOT = Path(__file__).parents[2]
REPORT = ROOT / "benchmarks" / "results" / "smollm2-up-proj-cpu.json"
MODELS = frozenset({"transformers", "scipy"})
OPTIONAL = ("transformers", "scipy", "triton", "torchao", "peft", "accelerate", "pynvml")
VERBS = ("measure", "show", "compare", "spectrum", "choose", "check", "tune", "doctor")  # and compress
PATIENCE = 300.0  # seconds
FAULT = "This is a fault in narrows"
ADVICE = "pip install 'narrows[models]'"

NAMES = """
import narrows
from narrows.errors import ResourceError
for name in narrows.__all__:
    try:
        getattr(narrows, name)
    except ResourceError as fault:
        assert "transformers" in HIDDEN and "pip install 'narrows[models]'" in str(fault), (name, fault)
"""
LIBRARY = """
import torch, narrows
weight, x = torch.randn(24, 32, generator=torch.Generator().manual_seed(0)), torch.ones(5, 32, requires_grad=True)
factors = narrows.factorize(weight, rank=24)
assert torch.allclose(narrows.linear(x, factors), x @ weight.T, atol=1e-4)
narrows.linear(x, factors.truncate(8)).sum().backward()
assert narrows.LowRankLinear.from_factors(factors)(x).shape == (5, 24)
square = narrows.factorize(torch.eye(32), rank=8)
assert narrows.bilinear(x, square).shape == (5, 5)
"""
MODEL = f"""
import json, sys
sys.path.insert(0, {str(ROOT / "tests")!r})
import tiny_models
with open("texts.jsonl", "w", encoding="utf-8") as file:
    file.writelines(json.dumps({{"text": text}}) + "\\n" for text in tiny_models.texts(60, 200))
from pathlib import Path
tiny_models.folder(tiny_models.llama(), Path("dense"))
"""
LOAD = """
import torch, narrows
from narrows.errors import ResourceError
try:
    model = narrows.load("out")
except ResourceError as fault:
    raise SystemExit(str(fault))
assert model(torch.arange(16)[None]).logits.shape[-1] > 16
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Feature:
    """Something a user does.

    Attributes:
        name: in words.
        words: what is run: arguments of the command, or ("python", code).
        needs: packages without which it cannot be done, and says so.
    """

    name: str
    words: tuple[str, ...]
    needs: frozenset[str] = frozenset()


MEASURE = ("measure", "--shape", "32x32", "--tokens", "8,16", "--rank", "4,8", "--minutes", "0.02")
QUICK = ("--texts", "texts.jsonl", "--context", "64", "--calibration-tokens", "2048", "--work", "work")
SHORT = (
    Feature(name="import narrows", words=("python", "import narrows")),
    Feature(name="compress --help", words=("compress", "--help")),
    Feature(name="the public names", words=("python", NAMES)),
    Feature(name="factors, operations and modules", words=("python", LIBRARY)),
    Feature(name="choose", words=("choose", "report.json", "--error", "0.5")),
)
LIGHT = (
    *SHORT,
    *(Feature(name=f"{verb} --help", words=(verb, "--help")) for verb in VERBS),
    Feature(name="show", words=("show", "report.json")),
    Feature(name="show --html", words=("show", "report.json", "--html", "{own}.html")),
    Feature(name="compare", words=("compare", "report.json", "report.json")),
    Feature(name="spectrum", words=("spectrum", "weight.npy")),
)
HEAVY = (
    Feature(name="doctor", words=("doctor",)),
    Feature(
        name="measure",
        words=(*MEASURE, "--store", "{own}.db"),
    ),
    Feature(name="load a compressed model", words=("python", LOAD), needs=frozenset({"transformers"})),
    Feature(name="compress", words=("compress", "dense", "{own}-out", "--budget", "keep=0.8", *QUICK), needs=MODELS),
    Feature(
        name="check",
        words=("check", "out", "--against", "dense", "--windows", "8", "--workload", "prefill:16x1"),
        needs=MODELS,
    ),
)


def sets(names: Iterable[str] = OPTIONAL) -> list[tuple[str, ...]]:
    """Return what is hidden in turn: each package alone, and all of them."""
    alone = [(name,) for name in names]
    return [*alone, tuple(names)]


def faults(folder: Path, hidden: Sequence[str], features: Sequence[Feature], jobs: int) -> Iterator[str]:
    """Yield what is wrong where these packages are hidden, one sentence each."""
    environment = hiding(folder, hidden)
    with ThreadPoolExecutor(jobs) as pool:
        found = list(pool.map(lambda one: fault_of(one, folder, environment), features))
    for feature, fault in zip(features, found, strict=True):
        if fault:
            yield f"without {', '.join(hidden)}: {feature.name}: {fault}"


def hiding(folder: Path, hidden: Sequence[str]) -> dict[str, str]:
    """Return the environment in which a process, and all that it starts, finds none of these packages."""
    site = folder / "site"
    site.mkdir(exist_ok=True)
    (site / "sitecustomize.py").write_bytes(Path(hide.__file__).read_bytes())
    own = {"PYTHONPATH": f"{site}{os.pathsep}{ROOT / 'src'}", hide.VARIABLE: ",".join(hidden)}
    caches = {name: str(folder / "home") for name in ("XDG_CACHE_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME")}
    return {**os.environ, **own, **caches, "OMP_NUM_THREADS": "1", "TRITON_INTERPRET": "0"}


def fault_of(feature: Feature, folder: Path, environment: dict[str, str]) -> str:
    """Return what is wrong with a feature in this environment; empty when it does what it should."""
    hidden = environment[hide.VARIABLE].split(",")
    own = "-".join(("own", *hidden, *feature.name.split()))
    done = run([word.replace("{own}", own) for word in feature.words], folder, environment)
    told = f"exit {done.returncode}: {(done.stderr.strip() or done.stdout.strip())[-300:]}"
    if FAULT in done.stderr or "Traceback" in done.stderr:
        return f"it breaks, {told}"
    if not feature.needs & set(hidden):
        return "" if done.returncode == 0 else f"it does not need them, and fails, {told}"
    is_refused = done.returncode != 0 and ADVICE in done.stderr
    return "" if is_refused else f"it does not say what to install, {told}"


def run(words: Sequence[str], folder: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Return what a command of narrows, or Python code, did in a folder."""
    hidden = environment[hide.VARIABLE].split(",")
    start = ["-c", f"HIDDEN = {hidden!r}\n{words[1]}"] if words[0] == "python" else ["-m", "narrows", *words]
    return subprocess.run(
        [sys.executable, *start],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def prepare(folder: Path, *, is_heavy: bool) -> None:
    """Put what the features read into a folder: a report and a weight; for the heavy ones a model and its compression.

    Raises:
        RuntimeError: the model could not be made or compressed although nothing is hidden.
    """
    import numpy as np

    np.save(folder / "weight.npy", np.random.default_rng(0).standard_normal((24, 32)))
    (folder / "report.json").write_bytes(REPORT.read_bytes())
    compressing = ("compress", "dense", "out", "--budget", "keep=0.8", *QUICK)
    for words in (("python", MODEL), compressing) if is_heavy else ():
        done = run(words, folder, hiding(folder, ()))
        if done.returncode:
            raise RuntimeError(f"{words[0]} with nothing hidden: exit {done.returncode}: {done.stderr[-500:]}")
