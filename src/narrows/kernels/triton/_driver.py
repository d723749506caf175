"""The CUDA driver's cuLaunchKernelEx with everything prepared but the addresses.

Triton's own launcher parses every argument again; here each has its place in memory already and
only tensors' addresses are written before a call.
"""

from __future__ import annotations

import ctypes
from functools import cache, partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

# Launch attributes of cuda.h by the name that Triton gives them.
_ATTRIBUTES = {"launch_cooperative_grid": 2, "launch_pdl": 6}
_TYPES = {
    "i1": ctypes.c_int8,
    "i8": ctypes.c_int8,
    "i16": ctypes.c_int16,
    "i32": ctypes.c_int32,
    "i64": ctypes.c_int64,
    "u32": ctypes.c_uint32,
    "u64": ctypes.c_uint64,
    "fp32": ctypes.c_float,
    "fp64": ctypes.c_double,
}


class _Attribute(ctypes.Structure):
    """CUlaunchAttribute of cuda.h: the value is a union of 64 bytes."""

    _fields_ = (("id", ctypes.c_int), ("padding", ctypes.c_char * 4), ("value", ctypes.c_int * 16))


class _Config(ctypes.Structure):
    """CUlaunchConfig of cuda.h."""

    _fields_ = (
        ("grid", ctypes.c_uint * 3),
        ("block", ctypes.c_uint * 3),
        ("shared_bytes", ctypes.c_uint),
        ("stream", ctypes.c_void_p),
        ("attributes", ctypes.POINTER(_Attribute)),
        ("num_attributes", ctypes.c_uint),
    )


@cache
def _driver() -> Any:
    """Return the driver; its calls let go of the interpreter lock, because a full queue of launches makes them wait."""
    return ctypes.CDLL("libcuda.so.1")


class Prepared:
    """One launch of a compiled Triton kernel. Of one owner: calls must not overlap (see `Launch`).

    Args:
        kernel: triton's CompiledKernel, loaded.
        grid: programs.
        values: its arguments in order; the tensors, which come first, may be anything.
        num_tensors: how many of them are tensors.
    """

    def __init__(self, kernel: Any, grid: tuple[int, int, int], values: Sequence[Any], num_tensors: int) -> None:
        self._made_of = (kernel, grid, values, num_tensors)
        metadata = kernel.metadata
        names = [name for name in _ATTRIBUTES if getattr(metadata, name)]
        attributes = (_Attribute * max(1, len(names)))()
        for attribute, name in zip(attributes, names, strict=False):
            attribute.id = _ATTRIBUTES[name]
            attribute.value[0] = 1
        block = (32 * metadata.num_warps, 1, 1)
        self.config = _Config(grid, block, metadata.shared, None, attributes, len(names))
        self.slots = [ctypes.c_uint64() for _ in range(num_tensors)]
        # Kept: the driver reads the arguments through their addresses.
        self._arguments = _arguments(kernel, self.slots, values)
        pointers = (ctypes.c_void_p * len(self._arguments))(*map(ctypes.addressof, self._arguments))
        function = ctypes.c_void_p(kernel.function)
        self._launch = partial(_driver().cuLaunchKernelEx, ctypes.byref(self.config), function, pointers, None)

    def copy(self) -> Prepared:
        """Return the same launch for another owner."""
        return Prepared(*self._made_of)

    def __call__(self) -> None:
        """Launch with the addresses in `slots` on the stream in `config`, of the current device."""
        if status := self._launch():
            raise RuntimeError(f"cuLaunchKernelEx failed with CUresult {status} (cuda.h has its name).")


def can_prepare(kernel: Any) -> bool:
    """Return whether a compiled kernel needs nothing that `Prepared` does not pass: clusters, scratch, descriptors."""
    metadata, types = kernel.metadata, kernel.src.signature.values()
    plain = all(kind == "constexpr" or kind[0] == "*" or kind in _TYPES for kind in types)
    return plain and metadata.num_ctas == 1 and metadata.global_scratch_size == 0 and metadata.profile_scratch_size == 0


def _arguments(kernel: Any, slots: Sequence[Any], values: Sequence[Any]) -> list[Any]:
    """Return the kernel's run-time arguments as C values: those that are not compiled in, and two empty scratches."""
    kinds = list(kernel.src.signature.values())
    arguments = [
        slots[index] if kind[0] == "*" else _TYPES[kind](values[index])
        for index, kind in enumerate(kinds)
        if kind != "constexpr"
    ]
    return [*arguments, ctypes.c_uint64(0), ctypes.c_uint64(0)]
