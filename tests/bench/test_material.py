"""Weights and inputs: the same for the same seed, checked where they come from a file."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from bench.experiments import GAUSSIAN, small
from narrows import WeightSource
from narrows.bench import file_shapes
from narrows.bench._material import input_hash, make_inputs, make_operands, weight_hash
from narrows.errors import FileError, InputError, NonFiniteError, ShapeError


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "model.safetensors"
    tensors = {
        "q": torch.randn(64, 32),
        "k": torch.randn(32, 32),
        "odd": torch.randn(7, 32),
        "bad": torch.full((32, 32), float("nan")),
        "ids": torch.ones(32, 32, dtype=torch.int64),
        "x": torch.randn(20, 32),
    }
    save_file(tensors, path)
    return path, tensors


def _file(path, tensor, **changes):
    return WeightSource("w", "file", path=str(path), tensor=tensor, **changes)


def test_heads_that_do_not_divide_the_rows_are_refused(model):
    path, _ = model
    source = _file(path, "q", right_path=str(path), right_tensor="k")
    with pytest.raises(ShapeError, match=r"weight has 64 rows, which 3 heads do not divide: check --heads"):
        make_operands(source, small(weights=(source,), heads=3))


def test_heads_need_a_product_read_from_files():
    with pytest.raises(InputError, match=r"heads=2 needs a product read from files: give --weight \(queries\) and"):
        make_operands(GAUSSIAN, small(heads=2))


def test_the_same_seed_makes_the_same_weight_and_another_seed_another():
    first, again, other = (make_operands(GAUSSIAN, small(seed=s)).exact() for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_inputs_and_weights_of_one_seed_are_not_the_same_numbers():
    x, _ = make_inputs(small(tokens=(64,)))
    W = make_operands(GAUSSIAN, small()).exact()
    assert abs(float(torch.corrcoef(torch.stack([x.flatten().double(), W.flatten()]))[0, 1])) < 0.1


def test_a_shorter_length_is_a_prefix_of_a_longer_one():
    short, _ = make_inputs(small(tokens=(80,)))
    long, _ = make_inputs(small(tokens=(128,)))
    assert torch.equal(short, long[:80])


def test_a_power_law_weight_has_that_spectrum_and_a_gaussian_weights_norm():
    W = make_operands(WeightSource("p", "power", exponent=0.7), small()).exact()
    sigma = torch.linalg.svdvals(W)
    wanted = torch.arange(1, 65, dtype=torch.float64) ** -0.7
    assert torch.allclose(sigma / sigma[0], wanted, rtol=1e-4)
    assert float(W.norm()) == pytest.approx(8.0, rel=1e-3)


def test_a_products_weight_is_right_transposed_times_left():
    operands = make_operands(WeightSource("p", "product", inner=5), small(out_features=48, other_tokens=8))
    assert operands.exact().shape == (48, 64)
    assert torch.linalg.matrix_rank(operands.exact()) == 5


def test_grouped_heads_share_their_keys(model):
    path, tensors = model
    source = _file(path, "q", right_path=str(path), right_tensor="k", inner=8)
    experiment = small(in_features=32, out_features=32, heads=8, kv_heads=4, ranks=(4,), weights=(source,))
    assert file_shapes(source, heads=8, kv_heads=4) == (32, 32, 8)
    weight = make_operands(source, experiment).exact()
    head, group = 5, 2
    wanted = tensors["k"][8 * group : 8 * group + 8].double().T @ tensors["q"][8 * head : 8 * head + 8].double()
    assert torch.allclose(weight[head], wanted)


def test_heads_that_do_not_divide_the_rows_are_named(model):
    path, _ = model
    source = _file(path, "odd", right_path=str(path), right_tensor="k")
    with pytest.raises(ShapeError, match=r"weight \(7, 32\) over 2 heads and weight-right \(32, 32\) over 2 heads"):
        file_shapes(source, heads=2, kv_heads=0)


@pytest.mark.parametrize(
    ("tensor", "error", "match"),
    [
        ("bad", NonFiniteError, r"weight w \(32, 32\) holds 1024 NaN or Inf"),
        ("ids", InputError, r"weight w is torch\.int64"),
        ("kk", FileError, r"no tensor 'kk' among its 6\. Nearest: k"),
    ],
)
def test_a_weight_that_cannot_be_measured_is_refused_with_its_name(model, tensor, error, match):
    path, _ = model
    with pytest.raises(error, match=match):
        make_operands(_file(path, tensor), small(in_features=32, out_features=32))


@pytest.mark.parametrize(("tokens", "features"), [((16, 32), 32), ((16,), 64)])
def test_activations_of_another_size_are_refused_with_both_sizes(model, tokens, features):
    path, _ = model
    experiment = small(
        in_features=features, out_features=features, tokens=tokens, input_path=str(path), input_tensor="x"
    )
    with pytest.raises(ShapeError, match=rf"input \(20, 32\) must be \(N, D\) with D={features} and N >= {tokens[-1]}"):
        make_inputs(experiment)


def test_content_is_hashed_and_not_the_path(model, tmp_path):
    path, tensors = model
    other = tmp_path / "copy.safetensors"
    save_file({"name": tensors["q"]}, other)
    experiment = small(in_features=32, out_features=64, other_tokens=4)
    assert weight_hash(_file(path, "q"), experiment) == weight_hash(_file(other, "name"), experiment)
    assert weight_hash(_file(path, "q"), experiment) != weight_hash(_file(path, "k"), experiment)
    assert input_hash(small(seed=0)) != input_hash(small(seed=1))
