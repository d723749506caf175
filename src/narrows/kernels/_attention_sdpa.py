"""Attention through torch's own fused kernels, each held to the widths and masks it takes.

Letters: B batch, H heads, G key heads, T query rows, U keys, R rank, F width of a value.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.backends.cuda import (
    SDPAParams,
    can_use_cudnn_attention,
    can_use_efficient_attention,
    can_use_flash_attention,
)
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import pad, scaled_dot_product_attention

from narrows.kernels._attention_mask import added_mask, merged_mask, only_valid
from narrows.kernels._attention_math import AttentionMath

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from torch import Tensor

    from narrows.kernels._attention_problem import AttentionProblem

# On one H200 (32 heads, 4096 rows, bfloat16, widths 128) cuDNN took 406 us, flash 795 us, the
# memory-efficient one 1640 us (benchmarks/results/attention-h200.json). Each is asked whether it takes a call; asking
# launches nothing.
CUDNN = SDPBackend.CUDNN_ATTENTION
SPECIFICATION = AttentionMath()
FUSED: dict[SDPBackend, Callable[[Any], bool]] = {
    CUDNN: can_use_cudnn_attention,
    SDPBackend.FLASH_ATTENTION: can_use_flash_attention,
    SDPBackend.EFFICIENT_ATTENTION: can_use_efficient_attention,
}
WIDTH_STEP = 8  # every fused CUDA kernel wants R and F in multiples of 8 elements
VECTOR_BYTES = 16  # and reads as many at once: an address or a row between two of them gives NaN (cuDNN 9.19, H200)
# cuDNN's gradients can be NaN where a tile of rows or of keys is not full and a row's scores are all far below 0
# (github.com/pytorch/pytorch/issues/196678 with a mask, github.com/NVIDIA/cudnn-frontend/issues/1072 for one row).
FULL_TILE = 128
# torch's CPU kernel looks for a row's largest score a vector at a time (16 of float32 at most); among fewer keys by
# comparisons, which pass over NaN: a row of NaN alone then gives 0 (torch 2.13).
KEYS_A_VECTOR = 16
FEW_ROWS = 64  # query rows of a key head up to which a mask is written out for each of them


@dataclass(frozen=True, slots=True)
class AttentionSdpa:
    """torch.nn.functional.scaled_dot_product_attention with its backend pinned."""

    name: str = "sdpa"

    def refuses(self, problem: AttentionProblem) -> str:  # noqa: ARG002 (of the protocol)
        """Return "": where no fused kernel takes a call, torch's own math runs it."""
        return ""

    def run(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        scale: float,
        mask: Tensor | None = None,
        causal: bool = False,
        lengths: Tensor | None = None,
    ) -> Tensor:
        """Return softmax(q k^T scale + mask) v, (B, H, T, F); with `lengths`, k and v are copied."""
        if not q.is_cuda and k.shape[2] < KEYS_A_VECTOR:
            return SPECIFICATION.run(q, k, v, scale=scale, mask=mask, causal=causal, lengths=lengths)
        call = prepare_sdpa(q, k, v, mask=mask, causal=causal, lengths=lengths)
        with call.pinned():
            return call.run(scale)


@dataclass(frozen=True, slots=True, eq=False)
class SdpaCall:
    """One call as torch takes it.

    Attributes:
        q, k, v: padded where the device needs it; q may have the heads of a group as rows.
        mask: of the same rows, added.
        is_causal: torch's own flag: T = U.
        shape: (B, H, T, F) of the result.
        blind: broadcasts to (B, H, T, 1): rows that see no key; None: there is none.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    mask: Tensor | None
    is_causal: bool
    shape: tuple[int, int, int, int]
    blind: Tensor | None = None

    @property
    def shares_keys(self) -> bool:
        """Query heads still share key heads."""
        return bool(self.q.shape[1] != self.k.shape[1])  # torch's flags take no symbolic truth

    def backend(self) -> SDPBackend:
        """Return the first fused CUDA kernel that takes this call, else math."""
        params = SDPAParams(self.q, self.k, self.v, self.mask, 0.0, self.is_causal, self.shares_keys)
        return next((backend for backend, takes in FUSED.items() if takes(params)), SDPBackend.MATH)

    def pinned(self) -> AbstractContextManager[Any]:
        """Return a context in which torch runs `backend()`; on a CPU, where there is one kernel, an empty one.

        Math, the last in torch's order, stays enabled: the setting is the process's, and a call of another
        thread at this moment must find something to run.
        """
        return sdpa_kernel([self.backend(), SDPBackend.MATH]) if self.q.is_cuda else nullcontext()

    def differentiate(self, scale: float, leaves: list[Tensor], grad: Tensor) -> tuple[Tensor, ...]:
        """Return the gradients of `leaves`, of which q, k and v were made, for that of the result."""
        with torch.enable_grad(), self._pinned_to_differentiate():
            out = self.run(scale)
        return torch.autograd.grad(out, leaves, readable(grad) if grad.is_cuda else grad)

    def _pinned_to_differentiate(self) -> AbstractContextManager[Any]:
        """Return a context in which torch runs a kernel whose gradients are right.

        torch chooses among them: asking here would need sizes that a traced backward pass does not have.
        """
        if not self.q.is_cuda:
            return nullcontext()
        is_full = self.mask is None and self.q.shape[2] % FULL_TILE == 0 and self.k.shape[2] % FULL_TILE == 0
        return sdpa_kernel([backend for backend in FUSED if is_full or backend != CUDNN] + [SDPBackend.MATH])

    def run(self, scale: float) -> Tensor:
        """Return the result, (B, H, T, F); differentiable."""
        # Above 0 for torch: its CPU kernel hides keys before it scales; -inf times 0 or less is no -inf (torch 2.13).
        q, scale = (self.q, scale) if scale > 0 else (self.q * (-1.0 if scale else 0.0), -scale or 1.0)
        out = scaled_dot_product_attention(
            q, self.k, self.v, self.mask, is_causal=self.is_causal, scale=scale, enable_gqa=self.shares_keys
        )
        out = out[..., : self.shape[-1]].reshape(self.shape)
        return out if self.blind is None else out.masked_fill(self.blind, 0)


def prepare_sdpa(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    mask: Tensor | None,
    causal: bool,
    lengths: Tensor | None,
    may_share: bool = True,
) -> SdpaCall:
    """Return a call in which as little as possible is copied.

    Args:
        q: (B, H, T, R). k: (B, G, U, R). v: (B, G, U, F).
        may_share: torch may be given fewer key heads than query heads.
    """
    (B, H, T, _), (G, U) = q.shape, k.shape[1:3]
    shape = (B, H, T, v.shape[-1])
    # torch's flag lets query t see key t, which is ours only for T = U without lengths.
    is_causal = bool(causal and mask is None and lengths is None and T == U and T > 1)
    allowed = merged_mask(mask, causal=causal and not is_causal, lengths=lengths, queries=T, keys=U, device=q.device)
    blind = None
    if allowed is not None:
        # Causality alone hides all keys from a row only where there are more rows than keys.
        may_be_blind = mask is not None or lengths is not None or T > U
        allowed, blind = added_mask(allowed, dtype=q.dtype, keys=U, may_be_blind=bool(may_be_blind))
    q, k, v = _fitting(q, only_valid(k, lengths), only_valid(v, lengths))
    if H == G:
        return SdpaCall(q, k, v, allowed, is_causal, shape, blind)
    if not is_causal and _is_written_out(allowed, H // G * T):
        rows = _as_rows(allowed, H, G, T)
        return SdpaCall(q.reshape(B, G, H // G * T, -1), k, v, rows, is_causal, shape, blind)
    shared = SdpaCall(q, k, v, allowed, is_causal, shape, blind)
    if may_share and (not q.is_cuda or shared.backend() is not SDPBackend.MATH):
        return shared
    k, v = (t.repeat_interleave(H // G, dim=1) for t in (k, v))
    return SdpaCall(q, k, v, allowed, is_causal, shape, blind)


def _is_written_out(mask: Tensor | None, rows: int) -> bool:
    """Return whether a mask may be written out for the heads of a group as rows: it is not there, or small."""
    return mask is None or mask.shape[1:3] == (1, 1) or rows <= FEW_ROWS


def _as_rows(mask: Tensor | None, H: int, G: int, T: int) -> Tensor | None:
    """Return a mask (B or 1, H or 1, T or 1, U) for queries (B, G, H / G T, R)."""
    if mask is None or mask.shape[1:3] == (1, 1):
        return mask
    if mask.shape[1] == 1:
        return mask.expand(-1, H // G, T, -1).reshape(mask.shape[0], 1, H // G * T, -1)
    return mask.expand(-1, H, T, -1).reshape(mask.shape[0], G, H // G * T, -1)


def _fitting(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return q, k and v as a fused kernel can read them, with widths that it takes: zeros change no score.

    CUDA: R and F up to the next multiple of 8. CPU: torch's flash kernel wants R = F.
    """
    R, F = q.shape[-1], v.shape[-1]
    rank, width = (
        (-(-R // WIDTH_STEP) * WIDTH_STEP, -(-F // WIDTH_STEP) * WIDTH_STEP) if q.is_cuda else (max(R, F),) * 2
    )
    return _wide(q, rank), _wide(k, rank), _wide(v, width)


def _wide(tensor: Tensor, width: int) -> Tensor:
    if tensor.shape[-1] != width:
        tensor = pad(tensor, (0, width - tensor.shape[-1]))
    return readable(tensor) if tensor.is_cuda or tensor.stride(-1) != 1 else tensor


def readable(tensor: Tensor) -> Tensor:
    """Return a tensor, or a contiguous copy where a fused CUDA kernel cannot read it in place.

    It can where rows are contiguous and begin, as the tensor does, at a multiple of 16 bytes. Elements that lie in
    one place (an expanded tensor) are copied too: cuDNN takes the order of dimensions in its result from strides.
    """
    step = VECTOR_BYTES // tensor.element_size()
    is_fine = (
        tensor.stride(-1) == 1
        and all(stride != 0 and stride % step == 0 for stride in tensor.stride()[:-1])
        and _address(tensor) % VECTOR_BYTES == 0
    )
    # Not .contiguous(): that returns a tensor itself where only its address or strides that lead nowhere are odd.
    return tensor if is_fine else tensor.clone(memory_format=torch.contiguous_format)


def _address(tensor: Tensor) -> Any:
    """Return the address, or where only shapes are traced, how far from the start of its memory a tensor lies."""
    if type(tensor) in {torch.Tensor, torch.nn.Parameter}:
        return tensor.data_ptr()
    return tensor.storage_offset() * tensor.element_size()
