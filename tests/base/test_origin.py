"""Whose code something is."""

import functools

import torch

import kdlab as kd
from kdlab.base.origin import origin


class Mine(kd.KDLoss):
    """A reader's own, though it derives from kdlab's."""


def test_what_is_written_somewhere_is_of_that_package():
    assert origin(kd.KDLoss) == origin(kd.KDLoss()) == origin(kd.sweep) == "kdlab"
    assert origin(torch.nn.Linear(2, 1)) == origin(torch.nn.functional.mse_loss) == "torch"
    assert origin(len) == origin(3) == "builtins"


def test_what_a_reader_writes_is_nobody_else_s():
    own = [Mine, Mine(), lambda a, b: a - b]
    assert not {origin(thing) for thing in own} & {"kdlab", "torch"}


def test_a_function_whose_arguments_are_filled_in_is_not_taken_for_its_inside():
    assert origin(functools.partial(torch.nn.functional.mse_loss)) == "functools"
