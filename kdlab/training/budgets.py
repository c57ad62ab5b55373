"""What is kept of a stack while it is trained: rows at its checkpoints, students at its budgets."""

import dataclasses
import math


class Budgets:
    """A stack's own number of epochs and the shorter ones that it passes on its way.

    Each has a part of `runs`: rows at its own checkpoints, and the students as they were at its
    end. checkpoints: as those of `sweep`.
    """

    def __init__(self, runs, stack, checkpoints):
        lengths = (*stack.shorter, stack.epochs)
        self.runs, self.epochs = runs, stack.epochs
        self.stacks = {epochs: dataclasses.replace(stack, epochs=epochs) for epochs in lengths}
        self.parts = {epochs: runs.none() for epochs in lengths}  # joined at the end, in this order
        self.marks = {epochs: marked(checkpoints, epochs) for epochs in lengths}
        self.recorded = -1  # the last epoch of which the whole run has a row

    def wants(self, epoch):
        """Whether a row is to be recorded at the end of this epoch."""
        return any(epoch in marks for marks in self.marks.values())

    def record(self, epoch, terms, found, steps):
        """Add the row to each budget that wants it; see `Runs.record`."""
        for epochs, marks in self.marks.items():
            if epoch in marks:
                self.parts[epochs].record(self.stacks[epochs], epoch, terms, found, steps)
                self.recorded = epoch if epochs == self.epochs else self.recorded

    def record_interrupted(self, epoch, found, steps):
        """Add the row of a run that ends here, perhaps amid an epoch."""
        self.parts[self.epochs].record(self.stacks[self.epochs], epoch, {}, found, steps)

    def keep_shorter(self, epoch, replicas):
        """Keep the students as they are, where a shorter budget ends here."""
        if epoch in self.parts and epoch < self.epochs:
            self.parts[epoch].keep(replicas.snapshot())

    def close(self, replicas):
        """Keep the students as they ended, and hand all parts to `runs`."""
        self.parts[self.epochs].keep(replicas)
        for part in self.parts.values():
            self.runs.join(part)


def marked(checkpoints, epochs):
    """The epochs at whose end a row is recorded: that many, evenly spaced, or those of a list.

    The last is always one; a list may go further.

    >>> sorted(marked(2, 5)), sorted(marked([1, 2, 10], 5))
    ([3, 5], [1, 2, 5])
    """
    if isinstance(checkpoints, int):
        return {math.ceil(epochs * (i + 1) / checkpoints) for i in range(checkpoints)}
    return {epoch for epoch in checkpoints if epoch < epochs} | {epochs}
