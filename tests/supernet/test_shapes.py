"""Dry runs remember what kernels make of shapes: against PyTorch's own operations, each run without a memory."""

import itertools
import warnings

import pytest
import torch
from torch import nn
from torch.utils._pytree import tree_leaves, tree_map

import gantailor
from gantailor.supernet.proof.dry import DryRuns
from gantailor.supernet.proof.shapes import Shapes
from gantailor.supernet.proof.stand_ins import Meta
from gantailor.supernet.proof.subnets import together
from gantailor.supernet.tracing.counting import ProductCounter, run_kernel


def form(values):
    """Shape, strides, type and device of every tensor."""
    tensors = [x for x in tree_leaves(values) if isinstance(x, torch.Tensor)]
    return [(tuple(x.shape), x.stride(), x.dtype, x.device.type) for x in tensors]


def made(call, kernel=None):
    """What an operation makes and leaves of its arguments, or the kind of its error."""
    try:
        with torch.no_grad():
            if kernel is None:
                return form(call())
            with ProductCounter(kernel):
                return form(call())
    except Exception as error:
        return type(error)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.int64])
def test_every_operation_of_pytorch(dtype):
    """Those of PyTorch's own tests, twice with a memory: both times what it makes without one."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torch.testing._internal.common_methods_invocations import op_db

        kernel, tried, wrong = Shapes(), 0, []
        for op in op_db:
            if dtype not in op.supported_dtypes("cpu"):
                continue
            try:
                sample = next(iter(op.sample_inputs("cpu", dtype)))
            except Exception:  # asks for a package that is not here
                continue
            for function in filter(None, (op.op, op.inplace_variant)):

                def call(function=function, sample=sample):
                    args, kwargs = tree_map(on_meta, ((sample.input, *sample.args), sample.kwargs))
                    return function(*args, **kwargs), args, kwargs

                tried += 1
                if not made(call) == made(call, kernel) == made(call, kernel):
                    wrong.append(op.name)
    assert tried > 400 and not wrong
    assert len(kernel._known) > 400


def on_meta(value):
    return value.detach().to("meta") if isinstance(value, torch.Tensor) else value


def twice(call):
    """What it makes the second time, with a memory."""
    kernel = Shapes()
    with ProductCounter(kernel):
        call()
        return call()


def test_numbers_of_other_types_are_others():
    kernel, x = Shapes(), torch.ones(3, dtype=torch.int64, device="meta")
    with ProductCounter(kernel):
        assert [(x + one).dtype for one in (1, 1.0, True, 1)] == [torch.int64, torch.float32, torch.int64, torch.int64]
        before = torch.get_default_dtype()
        try:
            torch.set_default_dtype(torch.float64)
            assert (x + 1.0).dtype == torch.float64
        finally:
            torch.set_default_dtype(before)


def test_values_are_computed_each_time():
    numbers = iter((1.0, 5.0))
    assert float(twice(lambda: torch.tensor(next(numbers)) * 2)) == 10.0


def test_in_place():
    x = torch.ones(1, 3, device="meta")
    assert twice(lambda: x.add_(1)) is x
    shapes = iter((torch.ones(3, device="meta"), torch.ones(3, device="meta")))
    assert twice(lambda: next(shapes).unsqueeze_(0)).shape == (1, 3)
    with ProductCounter(Shapes()):
        for _ in range(2):
            with pytest.raises(RuntimeError):
                torch.ones(1, device="meta").add_(x)


@torch.jit.script
def swish(x):
    return x * torch.sigmoid(x)


class Net(nn.Module):
    """An interpolation, a compiled function, two inputs' sizes."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 6, 1), nn.Conv2d(6, 3, 1)

    def forward(self, x):
        y = nn.functional.interpolate(swish(self.a(x)), scale_factor=2.0, mode="bilinear")
        return self.c(nn.functional.relu(self.b(y), inplace=True)).clamp(-1, 1)


def test_recordings_are_those_without_a_memory():
    supernet = gantailor.Supernet(Net().eval(), torch.randn(2, 3, 8, 8))
    plain = Meta()
    plain.kernel = run_kernel
    known, without = DryRuns(supernet, Meta()), DryRuns(supernet, plain)
    configs = [{}, *together(supernet.graph, selections=2, seed=0).values()]
    for config in itertools.chain(configs, configs):
        assert known.run(config) == without.run(config)
    assert any("sigmoid" in step.operation for step in known.full.steps)
    before = len(known.kind.kernel._known)
    known.run(configs[1])
    assert len(known.kind.kernel._known) == before > 4
