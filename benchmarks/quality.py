# ruff: noqa: D400 (the first line is the whole question)
"""How much worse does a real model get when its layers keep fewer numbers, by ours and by every baseline?

For every seed the documents are split anew into calibration, selection and check; all methods take the same moments of
the same calibration windows, and are judged on the same windows of check text and of a text from another source, which
nobody calibrates on. Perplexity: windows of 512 tokens without overlap; its ratio to dense's is paired token by token,
with a 95 % interval over documents. "kept" counts what stands in place of the block linears: r (D + E) for a pair of
factors. Baselines are evaluated as the product of their factors; ours as the modules that a user gets.

Reads a model's folder and text files only. A row is written as soon as it is known, and a second run of the same
command goes on with what is missing.

    python benchmarks/quality.py models/smollm2 models/texts --device cuda
    python benchmarks/quality.py models/smollm2 models/texts --methods svd-llm,ours --keeps 0.8 --seeds 0
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from _baselines_names import METHODS, TARGETS
from _baselines_report import report
from _gpu import command, missing, save

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

RESULTS = Path(__file__).parent / "results"
NOT_HERE = 3  # exit status: a package or the model is missing


def main() -> int:
    """Measure what is missing, record, print."""
    arguments = parse()
    lacking = missing(("torch", "transformers", "scipy"))
    if lacking or not (arguments.model / "config.json").exists():
        why = f"{sys.executable} lacks {', '.join(lacking)}" if lacking else f"{arguments.model} holds no model"
        print(f"{why}: `make models` makes both.", file=sys.stderr)
        return NOT_HERE
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    from _baselines_rows import measured

    record = opened(arguments)
    with tempfile.TemporaryDirectory() as scratch:
        for seed in arguments.seeds:
            todo = [job for job in jobs(arguments, seed) if not done(record, *job)]
            for row in measured(arguments, seed, todo, Path(arguments.store or scratch)) if todo else ():
                record["rows"].append(row)
                save(arguments.output, record)
    print(report(record["rows"]))
    return 0


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the command line's arguments."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", type=Path, help="folder of a causal model with its tokenizer")
    parser.add_argument("texts", type=Path, help="folder with wikipedia.jsonl and news.jsonl")
    parser.add_argument("--methods", type=words, default=METHODS, help=f"default {','.join(METHODS)}")
    parser.add_argument("--keeps", type=shares, default=(0.9, 0.8), help="default 0.9,0.8")
    parser.add_argument("--seeds", type=wholes, default=(0, 1), help="default 0,1")
    parser.add_argument("--windows", type=int, default=64, help="of each check text (default 64)")
    parser.add_argument("--context", type=int, default=512, help="tokens a window (default 512)")
    parser.add_argument("--calibration-tokens", type=int, default=32768, help="default 32768")
    parser.add_argument("--device", default="cpu", help="cpu (default) or cuda")
    parser.add_argument("--autocast", choices=("bfloat16", "none"), help="default bfloat16 on a CPU, none on a GPU")
    parser.add_argument("--store", help="a folder that keeps moments, so that a second run need not calibrate again")
    parser.add_argument("--output", help="a JSON file, or - for none (default results/quality-DEVICE.json)")
    found = parser.parse_args(argv)
    unknown = set(found.methods) - set(METHODS)
    if unknown:
        parser.error(f"unknown methods: {', '.join(sorted(unknown))}; there are {', '.join(METHODS)}")
    found.autocast = found.autocast or ("bfloat16" if found.device == "cpu" else "none")
    found.output = found.output or str(RESULTS / f"quality-{found.device.partition(':')[0]}.json")
    return found


def words(text: str) -> tuple[str, ...]:
    """Return the words of a comma list."""
    return tuple(text.split(","))


def shares(text: str) -> tuple[float, ...]:
    """Return the shares of a comma list: "0.9,0.8"."""
    return tuple(float(part) for part in text.split(","))


def wholes(text: str) -> tuple[int, ...]:
    """Return the whole numbers of a comma list."""
    return tuple(int(part) for part in text.split(","))


def jobs(arguments: argparse.Namespace, seed: int) -> list[tuple[int, str, float]]:
    """Return (seed, method, keep) of every row of a seed; dense keeps everything."""
    return [(seed, "dense", 1.0), *((seed, m, keep) for m in arguments.methods for keep in arguments.keeps)]


def done(record: Mapping[str, Any], seed: int, method: str, keep: float) -> bool:
    """Say whether the record holds a row."""
    return any((row["seed"], row["method"], row["keep"]) == (seed, method, keep) for row in record["rows"])


def opened(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the head of a record, with the rows of an earlier run of the same settings.

    Raises:
        SystemExit: the file was made with other settings.
    """
    import torch
    import transformers

    import narrows
    from narrows._machine import conditions, machine

    settings = {
        "model": arguments.model.name,
        "windows": arguments.windows,
        "context": arguments.context,
        "calibration_tokens": arguments.calibration_tokens,
        "autocast": arguments.autocast,
    }
    known: list[dict[str, Any]] = []
    if arguments.output != "-" and Path(arguments.output).exists():
        earlier = json.loads(Path(arguments.output).read_text(encoding="utf-8"))
        if earlier["settings"] != settings:
            raise SystemExit(f"{arguments.output} was made with {earlier['settings']}, not {settings}: give --output.")
        known = earlier["rows"]
    return {
        "question": (__doc__ or "").splitlines()[0],
        "command": command(),
        "machine": asdict(machine(arguments.device)),
        "conditions": conditions(arguments.device),
        "software": {"torch": torch.__version__, "transformers": transformers.__version__},
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "version": narrows.__version__,
        "settings": settings,
        "targets": {name: {str(keep): most for keep, most in own.items()} for name, own in TARGETS.items()},
        "rows": known,
    }


if __name__ == "__main__":
    sys.exit(main())
