"""What the tests of runs share: few digits, and a small student with every kind of state."""

from torch import nn

from kdlab.students.builders import Dropout

SMALL = {"sizes": (40, 40, 50)}


def normed(task):
    return nn.Sequential(
        nn.Flatten(1),
        nn.Linear(64, 8),
        nn.BatchNorm1d(8),
        Dropout(0.2),
        nn.ReLU(),
        nn.Linear(8, 10),
    )
