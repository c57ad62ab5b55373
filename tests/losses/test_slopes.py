"""The slope beside an objective's terms equals autograd's through its `rows`."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import kdlab as kd
from kdlab.losses.slopes import SLOPE, with_slope
from kdlab.losses.softmax import SHORT

R, B = 3, 5
EACH = {
    "labels": kd.HardLabels(),
    "label smoothing": kd.LabelSmoothing(0.1),
    "alpha 1": kd.KDLoss(4, 1.0),
    "alpha 0": kd.KDLoss(4, 0.0),
    "a mix": kd.KDLoss(2.5, 0.7),
    "without T²": kd.KDLoss(4, 0.7, scale="none"),
    "a factor of its own": kd.KDLoss(4, 0.7, scale=3.0),
    "a T and an alpha a student": kd.KDLoss(
        torch.tensor([1.0, 2.0, 8.0])[:, None, None], torch.tensor([0.0, 0.5, 1.0])[:, None, None]
    ),
}


def numbers(classes, dtype=torch.float64, seed=0):
    torch.manual_seed(seed)
    student, teacher = (5 * torch.randn(R, B, classes, dtype=dtype) for _ in range(2))
    labels = torch.randint(0, classes, (R, B))
    labels[0, 0] = -100
    return student, teacher, labels


@pytest.mark.parametrize("name", EACH)
@pytest.mark.parametrize("classes", [2, 10, SHORT])
def test_terms_and_slope_are_those_of_rows_and_autograd(name, classes):
    student, teacher, labels = numbers(classes)
    student.requires_grad_()
    usual = EACH[name].rows(student, teacher, labels)
    (slope,) = torch.autograd.grad(usual["loss"].sum(), student)
    found = with_slope(EACH[name])(student, teacher, labels)
    torch.testing.assert_close(found.pop(SLOPE), slope, atol=1e-12, rtol=0)
    assert list(found) == list(usual)
    for term, value in found.items():
        assert not value.requires_grad
        torch.testing.assert_close(value, usual[term].detach(), atol=1e-12, rtol=0)


@given(
    T=st.floats(0.5, 20), alpha=st.floats(0, 1), seed=st.integers(0, 99), size=st.floats(0.1, 100)
)
def test_in_float32_from_small_to_large_logits(T, alpha, seed, size):
    student, teacher, labels = numbers(10, torch.float32, seed)
    student, teacher = (size * student).requires_grad_(), size * teacher
    loss = kd.KDLoss(T, alpha)
    (slope,) = torch.autograd.grad(loss.rows(student, teacher, labels)["loss"].sum(), student)
    found = with_slope(loss)(student, teacher, labels)[SLOPE]
    torch.testing.assert_close(found, slope, atol=1e-4, rtol=1e-4)


def test_a_teacher_that_rules_a_class_out_and_one_of_another_precision():
    student, teacher, labels = numbers(4)
    teacher[..., 0] = -1e30  # stands for −inf, see taught.answers_of
    student.requires_grad_()
    loss = kd.KDLoss(2, 0.9)
    (slope,) = torch.autograd.grad(loss.rows(student, teacher, labels)["loss"].sum(), student)
    found = with_slope(loss)(student, teacher.float(), labels)[SLOPE]
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, slope, atol=1e-5, rtol=0)


def test_many_classes_go_the_usual_way():
    student, teacher, labels = numbers(SHORT + 1)
    terms = with_slope(kd.KDLoss(2, 0.9))(student.requires_grad_(), teacher, labels)
    assert SLOPE not in terms and terms["loss"].requires_grad


class Mine(kd.KDLoss):
    """A reader's own, which may compute another loss."""


@pytest.mark.parametrize(
    "objective",
    [Mine(), kd.KDLoss(standardise=True), kd.DKDLoss(), kd.OwnLoss(torch.nn.functional.mse_loss)],
)
def test_others_have_none(objective):
    assert with_slope(objective) is None
