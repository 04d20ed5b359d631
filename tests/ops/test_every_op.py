"""Promises common to all ops, tested on each op's example; new ops are covered automatically."""

import re

import pytest
import torch
from helpers.layouts import needs_kernels
from helpers.recorded import Recorded
from torch.utils._pytree import tree_map_only

from rpcnn.ops._library import OPS

pytestmark = needs_kernels


def test_every_schema_is_registered_with_an_example():
    names = (name.removeprefix("rpcnn::") for name in torch._C._dispatch_get_all_op_names() if "rpcnn::" in name)
    assert {re.sub("_(backward|traced)$", "", name) for name in names} == set(OPS)


@pytest.mark.parametrize("op", OPS)
def test_opcheck(op):
    example = OPS[op](small=True)
    with Recorded() as recorded:
        example.run(example.function, "cpu")
    assert [f.__name__ for f, _ in recorded.calls] == [f"{op}.default", f"{op}_backward.default"][: len(recorded.calls)]
    for number, (function, arguments) in enumerate(recorded.calls):
        # Not every op can be differentiated twice, so backward operators get tensors without requires_grad.
        arguments = arguments if number == 0 else tree_map_only(torch.Tensor, torch.Tensor.detach, arguments)
        torch.library.opcheck(function, arguments)
