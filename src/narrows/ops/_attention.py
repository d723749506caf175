"""softmax(q k^T scale + mask) v without holding the scores, for keys and values of any width.

Letters: B batch, H heads, G key heads, T query rows, U keys, R rank, F width of a value, D, E features.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from narrows.kernels import project
from narrows.ops._attention_checks import attention_factors, check_attend, check_attention, check_scale
from narrows.ops._attention_op import attend_op
from narrows.ops._library import AUTO

if TYPE_CHECKING:
    from torch import Tensor

    from narrows._values import Factors


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    scale: float | None = None,
    mask: Tensor | None = None,
    causal: bool = False,
    lengths: Tensor | None = None,
    impl: str = AUTO,
) -> Tensor:
    """Return softmax(q k^T scale + mask) v, (B, H, T, F), contiguous.

    Differentiable in q, k, v and a float mask; works under torch.compile(fullgraph=True), torch.export,
    torch.autocast, inference_mode, FlopCounterMode and CUDA graphs (run a shape once before it is captured),
    as one operation. The backward pass computes the attention again.

    Sources: the softmax in parts is that of Flash-Decoding (Dao, Haziza, Massa, Sizov, 2023) over the online
    softmax of Milakov and Gimelshein (2018).

    Args:
        q: (B, H, T, R).
        k: (B, G, U, R); G divides H: head h reads key head h // (H / G). R and F may be any widths.
        v: (B, G, U, F).
        scale: multiplies the scores, before the mask. Must be given: 1 / sqrt(width of the original heads).
        mask: broadcasts to (B, H, T, U). bool: True takes part; floating, of q's dtype: added.
        causal: query t sees keys 0 .. U - T + t: the LAST query sees the LAST key, as decoding against a cache
            and prefill in chunks need it (torch's is_causal aligns the first ones where T < U). Needs T <= U.
        lengths: (B,) int32 or int64: valid keys of each batch element; keys beyond are as if they were not
            there, whatever they hold ("sdpa" and "math" copy k and v for that; "triton" does not read them), and
            `causal` counts from the last valid one. Taken within 0..U; their values are never read by the host.
        impl: "auto" ("triton" for up to 16 query rows, and up to 64 for one key head, on CUDA; else "sdpa"), or
            "math", "sdpa", "triton"; a named implementation never falls back.

    A row that sees no key (all masked, a length of 0, U = 0) is 0, as in torch's attention.

    Raises:
        InputError: `scale` is missing, or an operand is not a tensor.
        ShapeError, DtypeError, DeviceError: operands do not fit together.
        ImplementationError: the named implementation does not exist or cannot run this.
    """
    check_attend(q, k, v, scale=scale, mask=mask, causal=causal, lengths=lengths)
    return attend_op(q, k, v, scale, mask, causal, lengths, impl)  # type: ignore[no-any-return]


def attention(
    x: Tensor,
    factors: Factors | tuple[Tensor, Tensor],
    v: Tensor,
    y: Tensor | None = None,
    *,
    scale: float | None = None,
    mask: Tensor | None = None,
    causal: bool = False,
    impl: str = AUTO,
) -> Tensor:
    """Return softmax((x a^T)(y b^T)^T scale + mask) v, (B, H, T, F), or (H, T, F) where nothing has a batch.

    The projections, then `attend`: everything said there holds here, gradients of the factors included.

    Args:
        x: (T, D) or (B, T, D).
        factors: Factors with heads, a (H, R, D) and b (H, R, E); or for grouped queries a pair of tensors,
            a (H, R, D) and b (G, R, E), G dividing H.
        v: (B, G, U, F) or (G, U, F); G = H for Factors.
        y: (U, E) or (B, U, E); None: Y = X, which needs D = E.
        scale: multiplies the scores. Must be given: 1 / sqrt(width of the original heads), not 1 / sqrt(R).
        mask: broadcasts to (B, H, T, U). bool: True takes part; floating: added.
        causal: the last query sees the last key; needs T <= U.
        impl: as in `attend`.

    Raises:
        InputError: `scale` is missing, an operand is not a tensor, or `factors` neither form.
        ShapeError, DtypeError, DeviceError: operands do not fit together.
        ImplementationError: the named implementation does not exist or cannot run this.
    """
    check_scale(scale)
    a, b = attention_factors(factors)
    check_attention(x, a, b, v, y)
    q, k = _heads(x, a), _heads(x if y is None else y, b)
    batches = [t.shape[0] for t in (q, k, v) if t.ndim == 4]
    B = next((size for size in batches if size != 1), 1)
    q, k, v = (t.expand(B, *t.shape[-3:]) for t in (q, k, v))
    out = attend(q, k, v, scale=scale, mask=mask, causal=causal, impl=impl)
    return out if batches else out[0]


def _heads(x: Tensor, weight: Tensor) -> Tensor:
    """Return x w^T for each head, (..., H, T, R), a view of one matmul over the rows of all heads.

    Truncated factors are copied for it, H R D elements, where a batched matmul would read x once a head.
    """
    H, R, D = weight.shape
    rows = project(x, weight.reshape(H * R, D))
    return rows.view(*x.shape[:-1], H, R).transpose(-3, -2)
