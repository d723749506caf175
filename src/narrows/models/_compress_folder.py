"""From a model's folder to a compressed model's folder."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from narrows.errors import InputError
from narrows.models._check_inputs import open_model, open_tokenizer
from narrows.models._check_text import documents_sha256
from narrows.models._compress import DEFAULT, carried_out
from narrows.models._compress_checks import check_speedup
from narrows.models._compress_job import Job
from narrows.models._compress_text import Reading
from narrows.models._needs import need_scipy
from narrows.models._save import check_output, save
from narrows.models._texts import read_documents

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from os import PathLike

    from narrows._values import ModelBudget, Workload
    from narrows.models._compress import Compression
    from narrows.models._recipe import Recipe

    Progress = Callable[[str, int, int], None] | None

# What decides the moments, and so which folder of the cache they are in.
CALIBRATION = ("method", "calibration_tokens", "context", "seed", "autocast")


def compress(
    source: str | PathLike[str],
    out: str | PathLike[str],
    budget: ModelBudget,
    *,
    texts: str | PathLike[str],
    workloads: Sequence[Workload] = (),
    recipe: Recipe = DEFAULT,
    patterns: Sequence[str] = (),
    device: str = "cpu",
    dtype: str | None = None,
    work: str | PathLike[str] | None = None,
    progress: Progress = None,
) -> Compression:
    """Compress the model of a folder into another folder that simply loads; see `compress_`.

    Where the answer is to stay dense, nothing is written: the model is its own folder already.

    Args:
        source: the dense model's folder.
        out: the folder to write; it appears whole, or not at all.
        budget: what must hold.
        texts: a .jsonl or .txt file, or a folder of them.
        workloads: that a speedup is asked for or reported at.
        recipe: how.
        patterns: names, or "re:" and a regular expression; only these layers may change.
        device: "cpu", "cuda" or "cuda:1".
        dtype: of the compressed model; None: as the dense one was saved.
        work: a folder for what is calibrated and timed, so that a run that was stopped, or one with another
            budget, goes on from there. None: a folder of the user's cache (`work_folder`).
        progress: called with what is done, how much, and of how much.

    Raises:
        BudgetError: no choice meets the budget; nothing is written.
        FileError, InputError, NonFiniteError, ResourceError: from the steps.
    """
    need_scipy("narrows compress")
    check_speedup(budget, workloads)
    if Path(out).resolve() == Path(source).resolve():
        raise InputError(f"OUT {out} is the model itself: give another folder.")
    check_output(out)
    documents = read_documents(texts)
    model = open_model(Path(source), device=device, dtype=dtype, is_compressed=False).model
    tokenizer = open_tokenizer(None, Path(source))
    reading = Reading(documents, Path(texts).resolve(), tokenizer, None, recipe)
    store = work or work_folder(source, documents, recipe, patterns=patterns, device=device, dtype=dtype)
    job = Job(model, budget, reading, tuple(workloads), recipe, None, tuple(patterns), store, progress)
    done = carried_out(job)
    if not done.is_dense:
        save(model, out, plan=done.plan, certificate=done.certificate, source=str(source), tokenizer=tokenizer)
    return done


def work_folder(
    source: str | PathLike[str],
    documents: Sequence[str],
    recipe: Recipe,
    *,
    patterns: Sequence[str] = (),
    device: str = "cpu",
    dtype: str | None = None,
) -> Path:
    """Return the folder of the user's cache for what these inputs calibrate; other inputs have another one."""
    import platformdirs

    folder = Path(source).resolve()
    files = [(one.name, one.stat().st_size, one.stat().st_mtime_ns) for one in sorted(folder.iterdir())]
    moments = [getattr(recipe, name) for name in CALIBRATION]
    key = repr((str(folder), files, documents_sha256(documents), moments, tuple(patterns), device, dtype))
    name = f"{folder.name}-{hashlib.sha256(key.encode()).hexdigest()[:16]}"
    return Path(platformdirs.user_cache_dir("narrows")) / "calibrations" / name
