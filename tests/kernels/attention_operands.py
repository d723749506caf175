"""Operands of attention whose softmax is uneven, and which keys each query sees, said once more and plainly.

Even weights would average the values away: a bound of 1 % of |v| would then pass a result of zeros.
"""

from dataclasses import dataclass, field

import torch

from narrows._oracle import worst
from narrows._oracle._attention import attention_bound


@dataclass
class Call:
    q: torch.Tensor
    k: torch.Tensor
    v: torch.Tensor
    scale: float
    options: dict = field(default_factory=dict)

    @property
    def tensors(self):
        return self.q, self.k, self.v

    def run(self, kernel, **changes):
        return kernel.run(*self.tensors, **{"scale": self.scale, **self.options, **changes})

    def seen(self):
        """Return the mask that says for each (batch, head, query, key) what it adds, or whether it is seen."""
        B, H, T, U = *self.q.shape[:3], self.k.shape[2]
        lengths, mask = self.options.get("lengths"), self.options.get("mask")
        seen = torch.ones(B, H, T, U, dtype=torch.bool)
        for batch in range(B):
            length = U if lengths is None else min(max(int(lengths[batch]), 0), U)
            for query in range(T):
                last = length - T + query if self.options.get("causal") else length - 1
                seen[batch, :, query, last + 1 if last >= 0 else 0 :] = False
        seen = seen.to(self.q.device)
        if mask is None:
            return seen
        return seen & mask if mask.dtype == torch.bool else mask.expand(seen.shape).masked_fill(~seen, -torch.inf)

    def reference(self):
        k, v = (t.nan_to_num() for t in (self.k, self.v))
        return attention_bound(self.q, k, v, scale=self.scale, mask=self.seen())

    def error(self, result):
        """Return the largest error over its bound: above 1 is wrong."""
        assert result.dtype == self.q.dtype
        return worst(result, self.reference())


def call(B=2, H=4, G=2, T=1, U=77, R=20, F=36, *, dtype=torch.float32, device="cpu", seed=0, spread=3.0, **options):
    """Return normal operands whose scores have a standard deviation of `spread`."""
    generator = torch.Generator(device).manual_seed(seed)
    make = lambda *size: torch.randn(size, generator=generator, device=device).to(dtype)  # noqa: E731
    return Call(make(B, H, T, R), make(B, G, U, R), make(B, G, U, F), spread * R**-0.5, options)


def bool_mask(*shape, seed=1, device="cpu"):
    """Return a mask of half True."""
    return torch.rand(shape, generator=torch.Generator(device).manual_seed(seed), device=device) > 0.5


def float_mask(*shape, dtype=torch.float32, seed=1, device="cpu"):
    """Return a mask that adds normal values and takes one key in four away."""
    generator = torch.Generator(device).manual_seed(seed)
    added = torch.randn(shape, generator=generator, device=device)
    return added.masked_fill(torch.rand(shape, generator=generator, device=device) > 0.75, -torch.inf).to(dtype)


def options(dtype=torch.float32, device="cpu", B=2, H=4, T=3, U=77):
    """Return what a call may ask for, by name."""
    lengths = torch.tensor([U, 5][:B], device=device)
    return {
        "plain": {},
        "causal": {"causal": True},
        "lengths": {"lengths": lengths},
        "lengths, causal": {"lengths": lengths.int(), "causal": True},
        "no key, and more than there are": {"lengths": torch.tensor([0, U + 9][:B], device=device), "causal": True},
        "fewer keys than queries": {"lengths": torch.tensor([2, 1][:B], device=device), "causal": True},
        "bool mask": {"mask": bool_mask(B, H, T, U, device=device)},
        "bool mask of keys, lengths": {"mask": bool_mask(B, 1, 1, U, device=device), "lengths": lengths},
        "float mask": {"mask": float_mask(H, T, U, dtype=dtype, device=device)},
        "float mask of rows, causal": {"mask": float_mask(T, U, dtype=dtype, device=device), "causal": True},
        "everything": {"mask": float_mask(1, H, 1, U, dtype=dtype, device=device), "lengths": lengths, "causal": True},
    }
