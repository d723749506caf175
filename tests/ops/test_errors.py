"""Each wrong operand gets one error that names it and shows the values."""

import pytest
import torch

import narrows
from narrows import Factors
from narrows.errors import DeviceError, DtypeError, InputError, RankError, ShapeError
from narrows.ops import bilinear_planned, linear_planned

SQUARE = Factors(torch.ones(3, 12), torch.ones(3, 12))
WIDE = Factors(torch.ones(3, 12), torch.ones(3, 10))
HEADS = Factors(torch.ones(4, 3, 12), torch.ones(4, 3, 12))
META = Factors(torch.ones(3, 12, device="meta"), torch.ones(3, 12, device="meta"))
X = torch.ones(7, 12)
OPERATIONS = [narrows.linear, narrows.bilinear]


@pytest.mark.parametrize("operation", OPERATIONS)
def test_wrong_features_show_both_sizes(operation):
    with pytest.raises(ShapeError, match=r"x \(7, 11\) has 11 features .*factors \(3, 12\) have D=12"):
        operation(torch.ones(7, 11), SQUARE)


def test_too_few_dimensions():
    with pytest.raises(ShapeError, match=r"x \(12,\) needs at least 2 dimensions"):
        narrows.bilinear(torch.ones(12), SQUARE)
    with pytest.raises(ShapeError, match=r"x \(12,\) needs at least 2 dimensions"):
        narrows.linear(torch.ones(12), HEADS)
    with pytest.raises(ShapeError, match=r"x \(\) needs at least 1 dimensions"):
        narrows.linear(torch.ones(()), SQUARE)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_batch_in_the_place_of_the_heads_says_unsqueeze(operation):
    with pytest.raises(ShapeError, match=r"x \(2, 7, 12\) has 2 .*H=4.*x\.unsqueeze\(-3\)"):
        operation(torch.ones(2, 7, 12), HEADS)
    assert operation(torch.ones(2, 7, 12).unsqueeze(-3), HEADS).shape[:2] == (2, 4)


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize(("factors", "x"), [(META, X), (SQUARE, X.to("meta"))])
def test_a_mix_with_meta_is_refused(operation, factors, x):
    with pytest.raises(DeviceError, match=r"x is on (cpu|meta) and factors\.a is on (cpu|meta)"):
        operation(x, factors)


def test_every_other_operand_on_meta_is_refused():
    with pytest.raises(DeviceError, match="y is on meta"):
        narrows.bilinear(X, SQUARE, X.to("meta"))
    with pytest.raises(DeviceError, match="bias is on meta"):
        narrows.linear(X, SQUARE, torch.ones(12, device="meta"))
    for mask in (torch.ones(7, 7, device="meta"), torch.ones(7, 7, device="meta") > 0):
        with pytest.raises(DeviceError, match="mask.* is on meta"):
            narrows.bilinear(X, SQUARE, mask=mask)


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.int64, torch.bool, torch.complex64])
def test_a_mix_of_dtypes_names_both(operation, dtype):
    with pytest.raises(DtypeError, match=rf"x is {dtype} and factors\.a is torch\.float32"):
        operation(X.to(dtype), SQUARE)


def test_every_other_operand_of_another_dtype_is_refused():
    with pytest.raises(DtypeError, match=r"y is torch\.float64"):
        narrows.bilinear(X, SQUARE, X.double())
    with pytest.raises(DtypeError, match=r"bias is torch\.int64"):
        narrows.linear(X, SQUARE, torch.ones(12, dtype=torch.int64))
    with pytest.raises(DtypeError, match=r"mask \(not bool\) is torch\.int64"):
        narrows.bilinear(X, SQUARE, mask=torch.ones(7, 7, dtype=torch.int64))


@pytest.mark.parametrize("dtype", [torch.float64, torch.int64])
def test_autocast_does_not_unite_what_it_leaves_alone(dtype):
    with (
        torch.autocast("cpu", torch.bfloat16),
        pytest.raises(DtypeError, match=rf"x is {dtype} and factors\.a is torch\.float32"),
    ):
        narrows.linear(X.to(dtype), SQUARE)


def test_bias_and_mask_and_y_have_their_sizes():
    with pytest.raises(ShapeError, match=r"bias \(12,\) must be \(E,\) = \(10,\) for factors a \(3, 12\), b \(3, 10\)"):
        narrows.linear(X, WIDE, torch.ones(12))
    with pytest.raises(ShapeError, match=r"y \(5, 12\) has 12 features .* have E=10"):
        narrows.bilinear(X, WIDE, torch.ones(5, 12))
    with pytest.raises(ShapeError, match=r"Y = X needs D = E, but .* have D=12, E=10. Pass y \(\.\.\., U, 10\)"):
        narrows.bilinear(X, WIDE)
    with pytest.raises(ShapeError, match=r"x \(2, 7, 12\) and y \(3, 5, 10\) have leading dimensions"):
        narrows.bilinear(torch.ones(2, 7, 12), WIDE, torch.ones(3, 5, 10))
    for shape in ((6, 7), (2, 7, 7), (7, 6)):
        with pytest.raises(ShapeError, match=r"mask \(.*\) does not broadcast to the scores \(7, 7\)"):
            narrows.bilinear(X, SQUARE, mask=torch.ones(shape))


def test_compiled_code_with_a_plan_names_a_wrong_operand(monkeypatch):
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    given, table = (SQUARE.a, SQUARE.b), [1, 8, 2]
    wrong = r"x \(7, 11\) has 11 features .*factors \(3, 12\) have D=12"
    with pytest.raises(ShapeError, match=wrong):
        linear_planned(torch.ones(7, 11), *given, None, table)
    with pytest.raises(ShapeError, match=wrong):
        bilinear_planned(torch.ones(7, 11), *given, None, None, None, table)
    with pytest.raises(ShapeError, match=r"mask \(6, 7\) does not broadcast to the scores \(7, 7\)"):
        bilinear_planned(X, *given, None, None, torch.ones(6, 7), table)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_what_is_no_tensor_or_no_factors_is_named(operation):
    with pytest.raises(
        InputError, match=r"factors is a Tensor: give Factors, as narrows\.factorize\(weight, rank=64\)"
    ):
        operation(X, torch.ones(12, 12))
    with pytest.raises(InputError, match="factors is a tuple: give Factors"):
        operation(X, (SQUARE.a, SQUARE.b))
    with pytest.raises(InputError, match=r"x is a ndarray: give a torch\.Tensor"):
        operation(X.numpy(), SQUARE)
    with pytest.raises(InputError, match="x is a NoneType"):
        operation(None, SQUARE)


def test_a_list_for_a_bias_or_a_mask_is_named():
    with pytest.raises(InputError, match="bias is a list"):
        narrows.linear(X, SQUARE, [1.0] * 12)
    with pytest.raises(InputError, match="mask is a list"):
        narrows.bilinear(X, SQUARE, mask=[1.0])


@pytest.mark.parametrize("rank", [1.5, "2", True])
def test_a_rank_that_is_no_whole_number_cannot_be_cut_to(rank):
    with pytest.raises(RankError, match=rf"rank={rank!r} is a \w+: give a whole number within 1\.\.3"):
        SQUARE.truncate(rank)
