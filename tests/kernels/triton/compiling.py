"""Compiles kernels for sm_90 without a GPU, as a script: `python compiling.py FIRST STEP` does every STEP-th case.

A process of its own, because Triton's interpreter is chosen once a process and tests without a GPU choose it.
Prints one JSON object a kernel.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from narrows.kernels._config import Config, Tiles
from narrows.kernels.tuned import Signature, analytic_config
from narrows.kernels.tuned._analytic import Limits
from narrows.kernels.tuned._known import DEFAULTS
from narrows.kernels.tuned._records import Tuning

WIDTH = 4096
POINTERS = {torch.bfloat16: "*bf16", torch.float16: "*fp16", torch.float32: "*fp32"}
BY_FORMULA = (
    (64, 64, "bfloat16"),
    (512, 64, "bfloat16"),
    (2048, 128, "bfloat16"),
    (8192, 256, "bfloat16"),
    (2048, 64, "float16"),
    (64, 64, "float32"),
    (2048, 64, "float32"),
)
OVERSIZED = Tiles(128, 256, 128, warps=4, stages=4)  # 256 registers of sums a thread, 4 x 96 KB of operands


@dataclass(frozen=True)
class Case:
    """One bilinear chain with Y = X."""

    impl: str
    tokens: int
    rank: int
    dtype: str
    config: Config

    def __str__(self) -> str:
        return f"{self.impl} T={self.tokens} R={self.rank} {self.dtype} {self.config}"


def cases() -> list[Case]:
    """Return every chain to compile: sizes by formula, and every different one that is shipped."""
    by_formula = [
        Case(impl, tokens, rank, dtype, analytic_config(_signature(tokens, rank, dtype), Limits()))
        for tokens, rank, dtype in BY_FORMULA
        for impl in (("triton", "gluon") if tokens >= 2048 and dtype != "float32" else ("triton",))
    ]
    shipped = {
        (impl, entry.rank, entry.dtype, candidate.config): Case(
            impl, entry.tokens, entry.rank, entry.dtype, candidate.config
        )
        for path in sorted(DEFAULTS.glob("*.json"))
        for entry in Tuning.from_json(path.read_bytes()).entries
        for impl, candidate in entry.candidates.items()
        if entry.kind == "bilinear" and entry.heads == 1 and not entry.other_tokens and candidate.config is not None
    }
    return [*by_formula, *shipped.values()]


def canary() -> Case:
    """Return a chain whose tiles no multiprocessor holds."""
    return Case("triton", 8192, 128, "bfloat16", Config(OVERSIZED, OVERSIZED))


def _signature(tokens: int, rank: int, dtype: str) -> Signature:
    return Signature("bilinear", tokens, 0, WIDTH, WIDTH, rank, 1, dtype, "graph", 0)


def compiled(case: Case) -> list[dict[str, Any]]:
    """Return what the compiler says of each kernel of a chain."""
    rows = compiled_gluon(case) if case.impl == "gluon" else compiled_triton(case)
    return [{"case": str(case), **row} for row in rows]


def compiled_triton(case: Case) -> list[dict[str, Any]]:
    """Return the rows of the launches that one call makes, in order: they are recorded in place of being run."""
    from narrows._values import Factors
    from narrows.kernels.triton import _bilinear
    from narrows.kernels.triton._launch import Launch

    recorded: list[tuple[Any, list[torch.dtype | None]]] = []

    def record(launch: Any, stream: int, *tensors: torch.Tensor | None) -> None:
        recorded.append((launch, [None if t is None else t.dtype for t in tensors]))

    dtype = getattr(torch, case.dtype)
    pair = torch.empty(case.rank, 2, WIDTH, dtype=dtype)
    with mock.patch.object(Launch, "__call__", record), mock.patch.object(_bilinear, "unsupported", return_value=""):
        x = torch.empty(case.tokens, WIDTH, dtype=dtype)
        _bilinear.BilinearTriton().run_with(case.config, x, Factors(pair[:, 0], pair[:, 1]))
    return [
        {
            "kernel": launch._function.__name__,
            "wants_wgmma": case.dtype != "float32" and _has_wide_dot(launch._constants),
            **_ask(_triton_source(launch, types), launch._constants),
        }
        for launch, types in recorded
    ]


def _has_wide_dot(constants: dict[str, Any]) -> bool:
    """Return whether a kernel multiplies tiles that one group of 4 warps can: wgmma takes 64 rows."""
    return "PRECISION" in constants and constants["BLOCK_M"] >= 64 and constants["num_warps"] >= 4


def _triton_source(launch: Any, types: list[torch.dtype | None]) -> Any:
    """Return the source that Triton's launcher would compile: it fixes 1, and knows what 16 divides."""
    from triton.compiler import ASTSource

    function, free = launch._function, set(launch._function.do_not_specialize)
    names = function.arg_names
    given = dict(zip(names, (*types, *launch._scalars), strict=False))
    given |= {name: value for name, value in launch._constants.items() if name in names}
    signature, constants, attributes = {}, {}, {}
    for index, name in enumerate(names):
        value = given[name]
        is_tensor, is_fixed = index < len(types), name in launch._constants
        if value is None or is_fixed or (value == 1 and name not in free):
            signature[name], constants[(index,)] = "constexpr", value
            continue
        signature[name] = POINTERS[value] if is_tensor else "fp32" if isinstance(value, float) else "i32"
        if is_tensor or (isinstance(value, int) and value % 16 == 0 and name not in free):
            attributes[(index,)] = [["tt.divisibility", 16]]
    return ASTSource(function, signature, constants, attributes)


def compiled_gluon(case: Case) -> list[dict[str, Any]]:
    """Return the row of the persistent scores kernel, with operands as the chain projects them and as rows."""
    from narrows.kernels.triton import _persistent, _persistent_scores

    sizes = _persistent.persistent_config(case.config.second, case.rank)
    rows = []
    for is_transposed in (True, False):
        constants = _persistent_scores.constants(sizes, case.rank) | {
            "UNIT": 8, "IS_TRANSPOSED": is_transposed, "HAS_SCALE": False, "IS_CAUSAL": False, "OVERLAP": "",
        }  # fmt: skip
        options = {"num_warps": sizes.warps}
        row = _ask(_gluon_source(case, sizes, constants, is_transposed=is_transposed), options)
        row["counted"] = sizes.shared_bytes(case.rank)
        rows.append({"kernel": f"persistent{' across' * is_transposed}", "wants_wgmma": True, **row})
    return rows


def _gluon_source(case: Case, sizes: Any, constants: dict[str, Any], *, is_transposed: bool) -> Any:
    from triton.experimental.gluon._runtime import GluonASTSource

    from narrows.kernels.triton._persistent_scores import descriptor_blocks
    from narrows.kernels.triton.device.scores_persistent import scores_persistent_kernel

    blocks = descriptor_blocks(sizes, case.rank, getattr(torch, case.dtype), is_transposed=is_transposed)
    element = POINTERS[getattr(torch, case.dtype)][1:]
    names = scores_persistent_kernel.arg_names
    descriptors = [f"tensordesc<{element}{block},{layout!r}>" for block, layout in blocks]
    signature = dict(zip(names, (*descriptors, "i32", "i32", "i32", "fp32"), strict=False))
    signature |= dict.fromkeys(constants, "constexpr")
    return GluonASTSource(scores_persistent_kernel, signature, {(names.index(n),): v for n, v in constants.items()})


def _ask(source: Any, constants: dict[str, Any]) -> dict[str, Any]:
    """Return the shared memory, registers and spilled bytes of one kernel, and whether it uses wgmma."""
    import triton
    from triton.backends.compiler import GPUTarget

    options = {name: constants[name] for name in ("num_warps", "num_stages", "launch_pdl") if name in constants}
    built = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)
    log = _ptxas(built.asm["ptx"])
    return {
        "shared": built.metadata.shared,
        "registers": int(re.search(r"Used (\d+) registers", log)[1]),
        "spilled": sum(map(int, re.findall(r"(\d+) bytes spill", log))),
        "wgmma": "wgmma.mma_async" in built.asm["ptx"],
        "serialized": "wgmma" in log and "serializ" in log,
    }


def _ptxas(ptx: str) -> str:
    from triton import knobs

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.ptx"
        path.write_text(ptx)
        command = [knobs.nvidia.ptxas.path, "-v", "-arch", "sm_90a", str(path), "-o", str(path.with_suffix(".cubin"))]
        return subprocess.run(command, check=True, capture_output=True, text=True).stderr


if __name__ == "__main__":
    first, step = map(int, sys.argv[1:])
    for wanted in [*cases(), canary()][first::step]:
        for found in compiled(wanted):
            sys.stdout.write(f"{json.dumps(found)}\n")
