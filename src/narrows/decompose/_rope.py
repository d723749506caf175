"""What rotary positions do to second moments, averaged over the distances at which tokens meet.

A head's vector is P complex numbers z_f = z[f] + i z[P + f]; a distance of t tokens turns z_f by t theta_f (Su et al.
2021, in the layout of two halves). So E[z z^H] is multiplied element by element by E[exp(i t (theta_f - theta_g))]
and E[z z^T] by E[exp(i t (theta_f + theta_g))]: exact for any distribution of t, without a sample. Fast frequencies
average to nothing against all others; slow ones hardly turn within the context and stay coupled, as if there were no
positions.

Letters: G groups, M, N pairs of features on two sides, P pairs of a whole head, K = 2 P.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from narrows.errors import InputError, ShapeError

Sums = tuple[int, torch.Tensor, torch.Tensor]


@dataclass(frozen=True, eq=False)
class Rotations:
    """Averages over the distances between a query and the keys it sees.

    Attributes:
        single: (P,) complex128, E[exp(i t theta_f)].
        difference, total: (P, P) complex128, E[exp(i t (theta_f - theta_g))] and E[exp(i t (theta_f + theta_g))].
    """

    single: torch.Tensor
    difference: torch.Tensor
    total: torch.Tensor

    @classmethod
    def causal(cls, frequencies: torch.Tensor, context: int) -> Rotations:
        """Return averages over all pairs in which each of `context` tokens sees itself and those before it.

        Args:
            frequencies: (P,) theta, in radians a token.
            context: tokens; a distance t occurs with weight context - t.

        Raises:
            InputError: a context below 1.
            ShapeError: frequencies of another shape.
        """
        if context < 1:
            raise InputError(f"context={context} must be at least 1 token.")
        if frequencies.ndim != 1 or not len(frequencies):
            raise ShapeError(f"frequencies {tuple(frequencies.shape)} must be (P,), one for each pair of features.")
        theta_P = frequencies.detach().to(torch.float64)

        return cls(
            _average(theta_P, context),
            _average(theta_P[:, None] - theta_P, context),
            _average(theta_P[:, None] + theta_P, context),
        )

    def turned(
        self, second: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor, *, backwards: bool
    ) -> torch.Tensor:
        """Return E[R_t S R_t^T], with R_t the turn by a random distance t.

        Args:
            second: S, (G, 2 M, 2 N).
            rows, columns: (G, M) and (G, N) int64: the frequency of each pair.
            backwards: turn by -t: keys as a query sees them; False: queries as a key sees them.
        """
        M, N = rows.shape[-1], columns.shape[-1]
        difference = self.difference[rows[..., None], columns[:, None]]
        total = self.total[rows[..., None], columns[:, None]]
        if backwards:
            difference, total = difference.conj(), total.conj()
        aa, ab = second[:, :M, :N], second[:, :M, N:]
        ba, bb = second[:, M:, :N], second[:, M:, N:]
        hermitian = torch.complex(aa + bb, ba - ab) * difference
        symmetric = torch.complex(aa - bb, ab + ba) * total
        plus, minus = hermitian + symmetric, symmetric - hermitian
        top = torch.cat((plus.real, minus.imag), dim=-1)
        bottom = torch.cat((plus.imag, -minus.real), dim=-1)
        return torch.cat((top, bottom), dim=-2) / 2


def _average(angles: torch.Tensor, context: int) -> torch.Tensor:
    """Return sum over t < context of (context - t) exp(i t angle) / sum of (context - t), complex128.

    The quotient that the sum equals cancels where an angle is near 0, so it is added up: over the bits of the context,
    from the sums over m and n tokens to those over m + n.
    """
    length, inner, outer = 0, torch.zeros_like(angles) + 0j, torch.zeros_like(angles) + 0j
    for bit in f"{context:b}":
        # inner is the sum of exp(i t angle) over t < length, outer that of (length - t) exp(i t angle).
        length, inner, outer = _joined(angles, (length, inner, outer), (length, inner, outer))
        if bit == "1":
            one = torch.ones_like(inner)
            length, inner, outer = _joined(angles, (1, one, one), (length, inner, outer))
    return outer / (context * (context + 1) / 2)


def _joined(angles: torch.Tensor, first: Sums, then: Sums) -> Sums:
    """Return the sums over both stretches of tokens, `then` after `first`."""
    turn = torch.polar(torch.ones_like(angles), first[0] * angles)
    return first[0] + then[0], first[1] + turn * then[1], first[2] + then[0] * first[1] + turn * then[2]
