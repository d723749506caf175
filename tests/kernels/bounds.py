"""How far a chain in a low precision may lie from the exact one (Higham, Accuracy and Stability, 3.5).

P = x a^T is off by at most E_P = gamma_D |x||a|^T, rounded to u; Q alike; the product adds
gamma_R (|P| + E_P)(|Q| + E_Q)^T, and the result is rounded once more.
"""

import torch

# CPU matmuls of half precisions accumulate in float32 and round once.
UNIT = {torch.float64: 2.0**-53, torch.float32: 2.0**-24, torch.bfloat16: 2.0**-8, torch.float16: 2.0**-11}
FLOOR = {torch.float64: 0.0, torch.float32: 2.0**-149, torch.bfloat16: 2.0**-134, torch.float16: 2.0**-25}


def gamma(length, dtype):
    """Return the bound on the relative error of a sum of `length` products."""
    unit = UNIT[torch.float64 if dtype == torch.float64 else torch.float32]
    return length * unit / (1 - length * unit)


def projection(x, weight, dtype):
    """Return exact x weight^T in float64 and the bound of its error."""
    x, weight = x.double(), weight.double()
    error = gamma(x.shape[-1], dtype) * (x.abs() @ weight.abs().mT)
    exact = x @ weight.mT
    return exact, error + UNIT[dtype] * (exact.abs() + error) + FLOOR[dtype]


def bilinear(x, a, y, b, dtype):
    """Return exact (x a^T)(y b^T)^T and the bound of a computed one."""
    p, p_error = projection(x, a, dtype)
    q, q_error = projection(y, b, dtype)
    exact = p @ q.mT
    error = p_error @ q.abs().mT + p.abs() @ q_error.mT + p_error @ q_error.mT
    error = error + gamma(a.shape[-2], dtype) * ((p.abs() + p_error) @ (q.abs() + q_error).mT)
    return exact, error + UNIT[dtype] * (exact.abs() + error) + FLOOR[dtype]


def linear(x, a, b, bias, dtype):
    """Return exact (x a^T) b + bias and the bound of a computed one."""
    p, p_error = projection(x, a, dtype)
    b, shift = b.double(), torch.zeros(b.shape[-1]).double() if bias is None else bias.double()
    exact = p @ b + shift
    inner = (p.abs() + p_error) @ b.abs() + shift.abs()
    error = p_error @ b.abs() + gamma(a.shape[-2] + 1, dtype) * inner
    return exact, error + UNIT[dtype] * (exact.abs() + error) + FLOOR[dtype]


def worst(computed, exact, bound):
    """Return the largest |error| / bound; above 1 is wrong. Shapes must agree."""
    assert computed.shape == exact.shape
    if not computed.numel():
        return 0.0
    return float(((computed.double() - exact).abs() / bound).detach().max())
