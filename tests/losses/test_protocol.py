"""What the loops may ask of an objective, whoever wrote it."""

import functools
import math

import pytest
import torch
from objectives import Counting

import kdlab as kd
from kdlab.losses.protocol import LayersLoss, Objective


class Matching(Objective):
    """An objective that says nothing but its loss."""

    def __init__(self, weight=1.0):
        self.weight, self._seen = weight, 0

    def rows(self, student_logits, teacher_logits, labels):
        return {"loss": self.weight * (student_logits - teacher_logits).square().mean(-1)}


def test_an_objective_that_says_nothing_needs_a_teacher_labels_and_one_vocabulary():
    plain = Matching()
    assert plain.needs_teacher and plain.needs_labels and plain.one_vocabulary
    assert not plain.own_text and (*plain.layers, *plain.swept) == ()
    student = torch.nn.Linear(2, 2)
    assert plain.prepare(student, torch.zeros(1, 2), {}, seed=0) is student


def test_other_settings_are_a_copy_s():
    one = Matching()
    other = one.with_settings(weight=3.0)
    assert (repr(one), repr(other)) == ("Matching(weight=1.0)", "Matching(weight=3.0)")
    assert (other.setting("weight"), one.setting("weight")) == (3.0, 1.0)
    assert math.isnan(one.setting("temperature"))
    assert (
        repr(one.with_settings(weight=torch.ones(2, 1, 1)))
        == "Matching(weight=tensor of (2, 1, 1))"
    )


def test_an_objective_without_rows_is_named():
    class Empty(Objective):
        pass

    with pytest.raises(NotImplementedError, match=r"^Empty must define rows\(student, teacher"):
        Empty().rows(None, None, None)


def test_a_loss_on_the_layers_of_two_models_is_told_from_others():
    assert isinstance(kd.LayerMap([(0, 0)]), LayersLoss) and isinstance(kd.Relations(), LayersLoss)
    assert not isinstance(torch.nn.Linear(2, 2), LayersLoss)
    assert not isinstance(kd.KDLoss(), LayersLoss)


def test_code_of_the_reader_s_own_is_not_recorded():
    assert kd.KDLoss().may_be_recorded and kd.TokenLoss().may_be_recorded
    hint = functools.partial(kd.HiddenLoss, pairs=[("1", "1")])
    assert hint(kd.features.similarity).may_be_recorded and not Counting().may_be_recorded
    assert not hint(lambda a, b: (a - b).sum()).may_be_recorded
    assert not hint(kd.features.similarity, base=Counting()).may_be_recorded
    assert not kd.OwnLoss(torch.nn.functional.kl_div).may_be_recorded


class Known(Counting):
    """One whose author knows that it may be."""

    may_be_recorded = True


def test_an_objective_of_the_reader_s_own_may_say_that_it_can_be_recorded():
    assert Known().may_be_recorded and Known().may_run_abreast
    assert kd.HiddenLoss(kd.features.similarity, [("1", "1")], base=Known()).may_be_recorded
