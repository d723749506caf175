"""Compile the linear chain's kernels for sm_90 as a call launches them, without a GPU: one JSON object a kernel.

python compile_linear.py FORM,TOKENS,RANK,DTYPE ...    FORM: linear, gated, group
"""

import json
import sys
from unittest import mock

import torch
from compiling import _ask, _has_wide_dot, _triton_source

from narrows import Factors, stack
from narrows.kernels import LinearEpilogue
from narrows.kernels.triton import _linear
from narrows.kernels.triton._launch import Launch
from narrows.kernels.triton._linear import LinearTriton
from narrows.kernels.tuned import Limits, Signature, analytic_config

WIDTH = 4096


def main():
    for case in sys.argv[1:]:
        form, tokens, rank, dtype = case.split(",")
        for row in compiled(form, int(tokens), int(rank), dtype):
            sys.stdout.write(json.dumps({"case": case, **row}) + "\n")


def compiled(form, tokens, rank, dtype):
    recorded = []

    def record(launch, stream, *tensors):
        recorded.append((launch, [None if t is None else t.dtype for t in tensors]))

    members = {"linear": 1, "gated": 2, "group": 3}[form]
    signature = Signature("linear", tokens, 0, WIDTH, members * WIDTH, members * rank, 1, dtype, "graph", 0)
    config = analytic_config(signature, Limits())
    with mock.patch.object(Launch, "__call__", record), mock.patch.object(_linear, "unsupported", return_value=""):
        run(form, config, tokens, rank, getattr(torch, dtype), members)
    return [
        {
            "kernel": launch._function.__name__,
            "wants_wgmma": dtype != "float32" and _has_wide_dot(launch._constants),
            **_ask(_triton_source(launch, types), launch._constants),
        }
        for launch, types in recorded
    ]


def run(form, config, tokens, rank, dtype, members):
    empty = lambda *shape: torch.empty(*shape, dtype=dtype)  # noqa: E731
    factors = stack([Factors(empty(rank, WIDTH), empty(WIDTH, rank).mT) for _ in range(members)])
    x = empty(tokens, WIDTH)
    if form == "linear":
        epilogue = LinearEpilogue(empty(WIDTH), None, empty(tokens, WIDTH), "gelu")
        LinearTriton().run_with(config, x, factors[0], epilogue=epilogue)
    elif form == "gated":
        LinearTriton().run_gated_with(config, x, *factors)
    else:
        LinearTriton().run_group_with(config, x, factors, [None] * members)


if __name__ == "__main__":
    main()
