"""Second moments with shrinkage: multiplied by as they are, split into a root only where one must be inverted.

Letters: N features of one side of a layer, K columns, D input, E output features.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch

from narrows.decompose._operands import check_operand
from narrows.errors import InputError, ShapeError

# float32 sums leave 1e-7 of the largest; bfloat16 products left 1e-3: that is no rounding of a zero any more.
TOLERANCE = 1e-5


@dataclass(frozen=True, eq=False)
class Root:
    """L with L L^T = a moment.

    Attributes:
        matrix: L, (N, N): lower triangular, or eigenvectors times the roots of their eigenvalues.
        roots: (N,), those roots, raised to the floor; None where L is triangular.
        floored: how many of them were raised; eigenvalues come in rising order, so they are the first.
    """

    matrix: torch.Tensor
    roots: torch.Tensor | None = None
    floored: int = 0

    def solve_transposed(self, x_NK: torch.Tensor) -> torch.Tensor:
        """Return L^-T x, (N, K)."""
        if self.roots is None:
            solved: torch.Tensor = torch.linalg.solve_triangular(self.matrix.mT, x_NK, upper=True)
            return solved
        return self.matrix @ (x_NK / self.roots[:, None] ** 2)

    def solve_both(self, x_NK: torch.Tensor) -> torch.Tensor:
        """Return (L L^T)^-1 x, (N, K); along floored directions 0, as a pseudo-inverse does."""
        if self.roots is None:
            return torch.cholesky_solve(x_NK, self.matrix)
        inverse = self.matrix / self.roots**2
        inverse[:, : self.floored] = 0
        return inverse @ (inverse.mT @ x_NK)


@dataclass(frozen=True, eq=False)
class Moment:
    """(1 - share) M + share m I, with m the mean of M's diagonal; formed only when a root is asked for.

    Attributes:
        name: for error texts.
        matrix: M, (N, N) float64, symmetric, positive semidefinite.
        share: 0..1, towards the multiple of the identity with the same trace (Ledoit and Wolf 2004).
    """

    name: str
    matrix: torch.Tensor
    share: float

    @classmethod
    def of(cls, name: str, tensor: torch.Tensor, *, like: torch.Tensor, size: int, share: float) -> Moment:
        """Return a checked moment in float64 on the device of `like`.

        Raises:
            ShapeError, DtypeError, DeviceError, NonFiniteError: as their names say.
            InputError: no energy (nothing came through this layer), or a share outside 0..1.
        """
        check_square(name, tensor, size)
        if not 0 <= share <= 1:
            raise InputError(f"the shrinkage of {name} is {share}: give a share within 0..1.")
        moment = cls(name, tensor.detach().to(like.device, torch.float64), share)
        if not moment.mean > 0:
            raise InputError(
                f"the mean of the diagonal of {name} {tuple(tensor.shape)} is {moment.mean:g}, but must be > 0: "
                "calibration saw nothing here. Leave this layer dense, or calibrate on text that reaches it."
            )
        return moment

    @property
    def mean(self) -> float:
        """m, the mean of the diagonal of M."""
        return float(self.matrix.diagonal().mean())

    def times(self, x_NK: torch.Tensor) -> torch.Tensor:
        """Return the shrunk moment times x, (N, K)."""
        product = self.matrix @ x_NK
        return product.mul_(1 - self.share).add_(x_NK, alpha=self.share * self.mean)

    def root(self) -> Root:
        """Return L with L L^T = the shrunk moment.

        With shrinkage the eigenvalues lie between share m and N m, so Cholesky is safe. Without it
        a moment may be singular: eigenvalues below N eps times the largest, which is what
        rounding leaves of a zero, are raised to that floor.

        Raises:
            InputError: not symmetric, or with eigenvalues more negative than rounding makes them.
        """
        check_symmetric(self.name, self.matrix)
        shrunk = (1 - self.share) * self.matrix
        shrunk.diagonal().add_(self.share * self.mean)
        if self.share > 0:
            lower, info = torch.linalg.cholesky_ex(shrunk)
            if int(info) == 0:
                return Root(lower)
        values, vectors = torch.linalg.eigh(shrunk)
        check_not_negative(self.name, values)
        floor = len(values) * torch.finfo(values.dtype).eps * float(values[-1])
        roots = values.clamp(min=floor).sqrt()
        return Root(vectors * roots, roots, int((values < floor).sum()))


class Side(Protocol):
    """What weighs one side of a matrix: symmetric, positive definite, (N, N); it need not be formed."""

    @property
    def name(self) -> str:
        """For error texts."""

    def times(self, x_NK: torch.Tensor) -> torch.Tensor:
        """Return its product with x, (N, K)."""

    def root(self) -> Root:
        """Return L with L L^T = the matrix."""


@dataclass(frozen=True, eq=False)
class Metric:
    """The norm ||G^1/2 M C^1/2||_F of a matrix (E, D); without G, of the outputs alone.

    Attributes:
        inputs: C, (D, D).
        gradients: G, (E, E); None: the identity.
        is_in_nats: half the squared norm is a growth of the loss: G is of its gradients.
    """

    inputs: Moment
    gradients: Side | None
    is_in_nats: bool

    @classmethod
    def of(
        cls,
        weight_ED: torch.Tensor,
        inputs: tuple[str, torch.Tensor, float],
        gradients: tuple[str, torch.Tensor | None, float],
    ) -> Metric:
        """Return the norm of two moments of a layer, each with its name in error texts and its shrinkage.

        Raises:
            As `Moment.of`.
        """
        E, D = weight_ED.shape
        of_inputs = Moment.of(inputs[0], inputs[1], like=weight_ED, size=D, share=inputs[2])
        name, tensor, share = gradients
        if tensor is None:
            return cls(of_inputs, None, is_in_nats=False)
        return cls(of_inputs, Moment.of(name, tensor, like=weight_ED, size=E, share=share), is_in_nats=True)

    def norm(self, matrix_ED: torch.Tensor) -> float:
        """Return the weighted norm of a float64 matrix, from two products and no root."""
        left_ED = matrix_ED if self.gradients is None else self.gradients.times(matrix_ED)
        right_DE = self.inputs.times(matrix_ED.mT)
        return math.sqrt(max(float((left_ED * right_DE.mT).sum()), 0.0))


def check_square(name: str, tensor: torch.Tensor, size: int) -> None:
    """Pass a finite (size, size) tensor.

    Raises:
        ShapeError, DtypeError, DeviceError, NonFiniteError: as their names say.
    """
    check_operand(name, tensor)
    if tensor.shape != (size, size):
        raise ShapeError(f"{name} {tuple(tensor.shape)} must be ({size}, {size}) for this weight.")


def check_symmetric(name: str, matrix_NN: torch.Tensor) -> None:
    """Pass a matrix that is symmetric but for rounding.

    Raises:
        InputError: it is not, as a cross moment in the place of a moment.
    """
    skew, largest = float((matrix_NN - matrix_NN.mT).abs().max()), float(matrix_NN.abs().max())
    if skew > TOLERANCE * largest:
        raise InputError(
            f"{name} is not symmetric: two mirrored elements differ by {skew:.3g}, the largest is {largest:.3g}. "
            "A second moment E[x x^T] is symmetric: is this a cross moment?"
        )


def check_not_negative(name: str, values_N: torch.Tensor) -> None:
    """Pass rising eigenvalues that are negative by no more than rounding.

    Raises:
        InputError: they are, which no average of x x^T can be.
    """
    smallest, largest = float(values_N[0]), float(values_N[-1])
    if smallest < -TOLERANCE * largest:
        raise InputError(
            f"{name} has a negative direction: the smallest eigenvalue is {smallest:.3g}, the largest {largest:.3g}. "
            "A second moment has none: were its products made in bfloat16 (an autocast that was left on)?"
        )
