"""The tensors of an experiment: weights from a recipe or a file, inputs from a seed or a file.

Letters: T tokens, N rows of real activations, D input, E output features, K inner size of a product,
H heads, G key/value heads. Runs in the child process.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from narrows._files import read_tensor, sha256_tensor
from narrows._values import DTYPE_BYTES
from narrows.decompose import factorize, factorize_product
from narrows.errors import DtypeError, InputError, NonFiniteError, ShapeError

if TYPE_CHECKING:
    from narrows._values import Experiment, Factors, WeightSource

FEWEST_ROWS = 64  # rows that an error is sampled over
RECIPE = 1  # raise when a made weight or input changes for the same seed


@dataclass(frozen=True, slots=True)
class Operands:
    """A weight as it was given: one matrix, or the two operands of a product right^T left.

    Attributes:
        weight: (E, D) or (H, E, D); None for a product.
        left: (K, D) or (H, K, D).
        right: (K, E) or (G, K, E), each shared by H / G heads of `left`.
    """

    weight: torch.Tensor | None = None
    left: torch.Tensor | None = None
    right: torch.Tensor | None = None

    def exact(self) -> torch.Tensor:
        """Return the weight, (E, D) or (H, E, D), float64 (a product is formed here)."""
        if self.weight is not None:
            return self.weight.double()
        assert self.left is not None
        assert self.right is not None
        return self.repeated().double().mT @ self.left.double()

    def repeated(self) -> torch.Tensor:
        """Return the right operand with one row of heads for each of `left`'s, (H, K, E)."""
        assert self.left is not None
        assert self.right is not None
        if self.right.ndim == 2:
            return self.right
        return self.right.repeat_interleave(len(self.left) // len(self.right), dim=0)

    def factorize(self, rank: int) -> Factors:
        """Return float64 factors of `rank` (a product's own rank, if that is smaller)."""
        if self.weight is not None:
            return factorize(self.weight.double(), rank=rank)
        assert self.left is not None
        assert self.right is not None
        return factorize_product(self.left.double(), self.right.double(), rank=min(rank, self.left.shape[-2]))


def _generator(experiment: Experiment, what: str) -> torch.Generator:
    """Return a generator whose stream depends on the seed and on what is made, nothing else."""
    digest = hashlib.sha256(f"{experiment.seed}:{what}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))


def _gaussian(experiment: Experiment, what: str, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=_generator(experiment, what), dtype=torch.float32)


def _power(experiment: Experiment, exponent: float) -> torch.Tensor:
    """W = U diag(i^-exponent) V^T with random orthonormal U, V, scaled to a Gaussian weight's norm."""
    D, E = experiment.in_features, experiment.out_features
    size = min(D, E)
    left, _ = torch.linalg.qr(_gaussian(experiment, "power-left", E, size))
    right, _ = torch.linalg.qr(_gaussian(experiment, "power-right", D, size))
    sigma: torch.Tensor = torch.arange(1, size + 1, dtype=torch.float32).pow(-exponent)
    scaled: torch.Tensor = left * (sigma * float(E**0.5 / sigma.norm()))
    return torch.mm(scaled, right.mT)


def _per_head(matrix: torch.Tensor, groups: int, what: str) -> torch.Tensor:
    """Split (H*K, D) into (H, K, D)."""
    rows = matrix.shape[0]
    if rows % groups:
        raise ShapeError(f"{what} has {rows} rows, which {groups} heads do not divide: check --heads and --kv-heads.")
    return matrix.reshape(groups, rows // groups, -1)


def _from_file(source: WeightSource, experiment: Experiment) -> Operands:
    left = read_tensor(source.path, source.tensor, layout=source.layout)
    if not source.right_path:
        return Operands(weight=left)
    right = read_tensor(source.right_path, source.right_tensor, layout=source.layout)
    if experiment.heads == 1:
        return Operands(left=left, right=right)
    return Operands(
        left=_per_head(left, experiment.heads, "weight"),
        right=_per_head(right, experiment.kv_heads or experiment.heads, "weight-right"),
    )


def _check(name: str, tensor: torch.Tensor | None, dtype: str) -> None:
    """Raise unless the values of a file's tensor are numbers, also in the dtype that is measured."""
    if tensor is None:
        return
    if str(tensor.dtype).removeprefix("torch.") not in DTYPE_BYTES:
        raise DtypeError(
            f"{name} is {tensor.dtype}: give a floating-point tensor ({', '.join(DTYPE_BYTES)}), "
            "for instance converted with .to(torch.float32)."
        )
    finite = torch.isfinite(tensor)
    if not finite.all():
        bad, first = int((~finite).sum()), tuple((~finite).nonzero()[0].tolist())
        raise NonFiniteError(
            f"{name} {tuple(tensor.shape)} holds {bad} NaN or Inf, the first at {first}: nothing can be measured on "
            "it. Repair it, or give another tensor."
        )
    largest, most = float(tensor.abs().max()), torch.finfo(getattr(torch, dtype)).max
    if largest > most:
        raise NonFiniteError(
            f"{name} {tuple(tensor.shape)} holds {largest:.3g}, above {most:.3g}, the largest {dtype}. Measure in a "
            "dtype with a larger range, or divide it first."
        )


def make_operands(source: WeightSource, experiment: Experiment) -> Operands:
    """Return the operands of one weight on the CPU in their own precision.

    Raises:
        FileError, InputError, ShapeError, NonFiniteError: with the name of the weight.
    """
    D, E = experiment.in_features, experiment.out_features
    if experiment.heads > 1 and not source.right_path:
        raise InputError(
            f"heads={experiment.heads} needs a product read from files: give --weight (queries) and --weight-right "
            "(keys), or one head."
        )
    if source.source == "gaussian":
        return Operands(weight=_gaussian(experiment, "weight", E, D) * D**-0.5)
    if source.source == "power":
        return Operands(weight=_power(experiment, source.exponent))
    if source.source == "product":
        scale = (D * source.inner) ** -0.25
        left = _gaussian(experiment, "query", source.inner, D) * scale
        return Operands(left=left, right=_gaussian(experiment, "key", source.inner, E) * scale)
    operands = _from_file(source, experiment)
    left = operands.weight if operands.weight is not None else operands.left
    _check(f"weight {source.name}", left, experiment.dtype)
    _check(f"weight-right of {source.name}", operands.right, experiment.dtype)
    return operands


def weight_hash(source: WeightSource, experiment: Experiment) -> str:
    """Return the identity of a weight's content: of its bytes, or of the recipe that makes it."""
    if source.source == "file":
        operands = make_operands(source, experiment)
        parts = [sha256_tensor(t) for t in (operands.weight, operands.left, operands.right) if t is not None]
    else:
        shape = f"{experiment.out_features}x{experiment.in_features}"
        parts = [f"recipe {RECIPE} {source.source} {source.exponent} {source.inner} {shape} seed {experiment.seed}"]
    return hashlib.sha256(":".join(parts).encode()).hexdigest()


def make_inputs(experiment: Experiment, num_rows: int | None = None) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return x (N, D) and y (U, E) (None: Y = X) on the CPU; every length is a prefix of x.

    Args:
        experiment: seed, sizes and files.
        num_rows: the largest length that is made, default: of all. Made inputs have 64 rows at least, files all
            that they have: errors are sampled over all of them.

    Raises:
        ShapeError: real activations have too few rows or another width.
    """
    y, num_rows = None, max(experiment.tokens) if num_rows is None else num_rows
    if experiment.other_tokens is not None:
        y = _gaussian(experiment, "y", experiment.other_tokens, experiment.out_features)
    if not experiment.input_path:
        return _gaussian(experiment, "x", max(num_rows, FEWEST_ROWS), experiment.in_features), y
    x = read_tensor(experiment.input_path, experiment.input_tensor)
    _check("input", x, experiment.dtype)
    if x.shape[1] != experiment.in_features or x.shape[0] < max(experiment.tokens):
        raise ShapeError(
            f"input {tuple(x.shape)} must be (N, D) with D={experiment.in_features} and N >= {max(experiment.tokens)} "
            "(the largest of --tokens): give more activations or fewer tokens."
        )
    return x, y


def input_hash(experiment: Experiment) -> str:
    """Return the identity of the inputs' content."""
    if not experiment.input_path:
        return f"recipe {RECIPE} normal seed {experiment.seed}"
    return sha256_tensor(read_tensor(experiment.input_path, experiment.input_tensor))
