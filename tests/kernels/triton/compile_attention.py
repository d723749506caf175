"""Compile the decode kernel for sm_90 as `decode` launches it, without a GPU: one line a case.

python compile_attention.py R,F,DTYPE,ROWS ...    prints: shared bytes, registers, threads, spilled bytes, copy bytes
"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from narrows.kernels._attention_config import decode_config, padded
from narrows.kernels.triton.device.attention import attention_kernel

BYTES = {"bf16": 2, "fp16": 2, "fp32": 4}


def main():
    for case in sys.argv[1:]:
        R, F, dtype, rows = case.split(",")
        sys.stdout.write(" ".join(map(str, compiled(int(R), int(F), dtype, int(rows)))) + "\n")


def compiled(R, F, dtype, rows):
    size = BYTES[dtype]
    config = decode_config(64, 16384, rows=rows, rank=R, width=F, itemsize=size, multiprocessors=132)
    align = lambda width: next(unit for unit in (16 // size, 4, 2, 1) if width % unit == 0)  # noqa: E731
    fixed = {
        "mask": None, "lengths": None, "RANK": R, "WIDTH": F, "K_ALIGN": align(R), "V_ALIGN": align(F),
        "BLOCK_M": padded(rows), "BLOCK_N": config.block, "BLOCK_R": padded(R), "BLOCK_F": padded(F), "MASK": "",
        "IS_CAUSAL": False, "HAS_LENGTHS": False, "IS_WHOLE": False, "OVERLAP": True, "PRECISION": "ieee",
    }  # fmt: skip
    tensors = {**dict.fromkeys(("q", "k", "v"), f"*{dtype}"), "sums": "*fp32", "parts": "*fp32"}
    params = attention_kernel.params
    signature = {p.name: "constexpr" if p.name in fixed else tensors.get(p.name) or p.annotation_type for p in params}
    constants = {(p.num,): fixed[p.name] for p in params if p.name in fixed}
    aligned = {(p.num,): [["tt.divisibility", 16]] for p in params if p.name in tensors}
    source = ASTSource(fn=attention_kernel, signature=signature, constexprs=constants, attrs=aligned)
    options = {"num_warps": config.warps, "num_stages": config.stages}
    kernel = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)
    registers, spilled = usage(kernel.asm["cubin"])
    copies = re.findall(r"cp\.async\.c[ag]\.shared\.global \[[^]]*\], \[[^]]*\], 0x(\w+)", kernel.asm["ptx"])
    return kernel.metadata.shared, registers, 32 * config.warps, spilled, max(int(copy, 16) for copy in copies)


def usage(cubin):
    """Return registers and stack bytes a thread."""
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        text = subprocess.run([tool, "-res-usage", file.name], capture_output=True, text=True, check=True).stdout
    return tuple(int(number) for number in re.search(r"REG:(\d+) STACK:(\d+)", text).groups())


if __name__ == "__main__":
    main()
