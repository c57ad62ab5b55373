"""A stack's training step recorded once and replayed: on a GPU, launches are what small steps cost.

A CUDA graph holds the kernels of one step, the students' answers, the loss, the gradients and the
optimiser, with the addresses that they read and write. So what changes from step to step stands in
tensors that stay: the batch's row numbers, the weights, the learning rates. Source: PyTorch's notes
on CUDA graphs.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

WARM_UP = 3  # steps before recording: libraries choose their kernels and take their memory


class CudaGraph:
    """torch's graph of one function: recorded by `record`, run by `replay`."""

    def __init__(self, generators: list[torch.Generator]):
        self.graph = torch.cuda.CUDAGraph()
        for generator in generators:
            self.graph.register_generator_state(generator)

    def warm_up(self, function: Callable) -> None:
        """Run it on a stream of its own, as recording asks for."""
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_UP):
                function()
        torch.cuda.current_stream().wait_stream(side)

    def record(self, function: Callable) -> Any:
        """What function() returns: tensors that each replay fills anew."""
        with torch.cuda.graph(self.graph):
            return function()

    def replay(self) -> None:
        """The recorded kernels, once more."""
        self.graph.replay()

    def free(self) -> None:
        """Give its memory back."""
        self.graph.reset()


class Captured:
    """one_step(rows) → terms, recorded for each shape of rows, with the same numbers as without.

    one_step: a step that changes nothing but `state()`: {name: tensor}, and what the generators
    count. before_step: what happens on the host before each step (the learning rates).

    A step that cannot be recorded (it reads a value on the host, or calls what has no place in a
    graph) runs as it is: `why` then holds the error.
    """

    def __init__(
        self,
        one_step: Callable[[Tensor], dict[str, Tensor]],
        state: Callable[[], dict[str, Tensor]],
        generators: list[torch.Generator],
        before_step: Callable[[], None],
        graph: Callable[[list[torch.Generator]], Any] = CudaGraph,
    ):
        self.one_step, self.state, self.generators = one_step, state, generators
        self.before_step, self.graph = before_step, graph
        self.recorded: dict[tuple, tuple] = {}  # rows' shape → graph, its rows, its terms
        self.why: Exception | None = None

    def __call__(self, rows: Tensor) -> dict[str, Tensor]:
        """The step on these rows (R, B)."""
        shape = tuple(rows.shape)
        if self.why is None and shape not in self.recorded:
            self._record(rows)
        self.before_step()
        if self.why is not None:
            return self.one_step(rows)
        graph, own_rows, terms = self.recorded[shape]
        own_rows.copy_(rows)
        graph.replay()
        return terms

    def _record(self, rows):
        """Warm up and record, which runs nothing; all that the warm-up changed is as before."""
        before = {name: value.clone() for name, value in self.state().items()}
        counts = [generator.get_state() for generator in self.generators]
        graph, own_rows = self.graph(self.generators), rows.clone()
        try:
            graph.warm_up(lambda: self.one_step(own_rows))
            terms = graph.record(lambda: self.one_step(own_rows))
        except RuntimeError as error:
            self.why = error
            self.free()
        else:
            self.recorded[tuple(rows.shape)] = graph, own_rows, terms
        finally:  # also where the reader stops it
            self._restore(before, counts)

    def _restore(self, before, counts):
        for name, value in self.state().items():
            # what the optimiser began in the warm-up begins at 0
            value.copy_(before[name]) if name in before else value.zero_()
        for generator, count in zip(self.generators, counts, strict=True):
            generator.set_state(count)

    def free(self) -> None:
        """Give the graphs' memory back."""
        for graph, *_ in self.recorded.values():
            graph.free()
        self.recorded.clear()
