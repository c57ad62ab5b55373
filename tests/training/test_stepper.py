"""What an optimiser over a stack of replicas refuses."""

import pytest
from torch import nn

from kdlab.training.replicas import Replicas
from kdlab.training.stepper import Stepper


@pytest.mark.parametrize(
    "options, words",
    [
        ({"optimiser": "lion"}, r"optimiser must be one of \['adam', 'adamw', 'sgd'\], got 'lion'"),
        ({"schedule": "linear"}, "schedule must be 'cosine' or 'constant', got 'linear'"),
        ({"clip": 0}, "clip must be above 0, or None, got 0"),
        ({"clip": -1.0}, "clip must be above 0, or None, got -1.0"),
    ],
)
def test_what_a_stepper_does_not_know_is_refused(options, words):
    with pytest.raises(ValueError, match=words):
        Stepper(Replicas([nn.Linear(2, 2)], [0]), [1e-2], 1, **options)
