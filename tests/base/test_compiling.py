"""Where a formula is compiled, and for which shapes."""

import functools

import pytest
import torch

from kdlab.base import compiling

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize("asked, expected", [("1", True), ("0", False)])
def test_the_environment_decides(asked, expected, monkeypatch):
    monkeypatch.setenv("KDLAB_COMPILE", asked)
    assert compiling.compiles(CPU) is compiling.compiles(GPU) is expected


@pytest.mark.parametrize("unset", [None, "", "yes"])
@pytest.mark.parametrize("triton", [True, False])
def test_otherwise_a_gpu_with_triton_does(unset, triton, monkeypatch):
    monkeypatch.delenv("KDLAB_COMPILE", raising=False)
    if unset is not None:
        monkeypatch.setenv("KDLAB_COMPILE", unset)
    monkeypatch.setattr("torch.utils._triton.has_triton", lambda: triton)
    assert compiling.compiles(GPU) is triton and compiling.compiles(CPU) is False


def test_each_shape_is_compiled_for_itself(monkeypatch):
    shapes = []

    def backend(graph, inputs):
        shapes.append(tuple(inputs[0].shape))
        return graph.forward

    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=backend))
    doubled = compiling.compiled(lambda x: 2 * x)
    for count in (2, 3, 3):
        x = torch.arange(float(count))
        assert torch.equal(doubled(x), 2 * x)
    assert shapes == [(2,), (3,)]
