"""Sums: every step against plain arithmetic, the rationales read back, and who learns them."""

import itertools
import re

import pytest
import torch

from kdlab import HiddenLoss, distill, load, mlp
from kdlab.data import sums
from kdlab.losses.rationale import rationale_loss
from kdlab.teachers.rationales import Rationales

X = torch.from_numpy(sums.pools()[0]["train"][0])
QUESTIONS = list(itertools.product(range(10), repeat=4))
STEPS = [((a + b) % 10, (a + b) * c % 10, ((a + b) * c + d) % 10) for a, b, c, d in QUESTIONS]


def test_the_pool_holds_every_question_once_with_its_answer():
    pools, classes, card = sums.pools()
    x, y = pools["train"]
    assert x.shape == (10_000, 1, 4, 10) and x.dtype == "float32"
    assert set(x.ravel().tolist()) == {0, 1} and (x.sum(-1) == 1).all()
    assert [tuple(q) for q in x[:, 0].argmax(-1).tolist()] == QUESTIONS
    assert y.tolist() == [answer for _, _, answer in STEPS]
    assert list(pools) == ["train"] and classes == list("0123456789") and "(a + b) · c + d" in card


def test_steps_are_plain_arithmetic():
    assert [tuple(row) for row in sums.steps(X).tolist()] == STEPS


def test_a_rationale_read_back_is_true_and_ends_in_the_label():
    found = sums.text(X)
    assert {k: len(v) for k, v in found.items()} == {
        "input": 10_000,
        "label": 10_000,
        "rationale": 10_000,
    }
    for (a, b, c, d), question, label, said in zip(QUESTIONS, *found.values(), strict=True):
        asked = re.fullmatch(
            r"What is the last digit of \((\d) \+ (\d)\) · (\d) \+ (\d)\?", question
        )
        assert tuple(map(int, asked.groups())) == (a, b, c, d)
        *lines, last = said.removesuffix(".").split(". ")
        read = [
            tuple(map(int, re.fullmatch(r"(\d) [+·] (\d) ends in (\d)", line).groups()))
            for line in lines
        ]
        assert re.findall("[+·]", said) == ["+", "·", "+"]
        (x1, y1, s), (x2, y2, p), (x3, y3, end) = read
        assert (x1, y1, x2, y2, x3, y3) == (
            a,
            b,
            s,
            c,
            p,
            d,
        )  # each step goes on from the one before
        assert (s, p, end) == ((x1 + y1) % 10, x2 * y2 % 10, (x3 + y3) % 10)
        assert last == f"The answer is {end}" and label == str(((a + b) * c + d) % 10) == str(end)


def test_who_slips_goes_on_from_the_slip():
    found = sums.slipping(X, 0.3, answers=2, seed=5)
    assert len(found) == len(X) and {len(several) for several in found} == {2}
    wrong, right = [], []
    for (a, b, c, d), several in zip(QUESTIONS, found, strict=True):
        for text in several:
            s, p, y, last = map(int, re.findall(r"(?:ends in|answer is) (\d)", text))
            assert text.startswith(f"{a} + {b} ends in") and f"{s} · {c} ends" in text and last == y
            assert f"{p} + {d} ends" in text
            wrong.append([s != (a + b) % 10, p != s * c % 10, y != (p + d) % 10])
            right.append(y == ((a + b) * c + d) % 10)
    # each step by itself; 4 sd of 20,000 draws is 0.013
    assert torch.tensor(wrong).float().mean(0).tolist() == pytest.approx([0.3] * 3, abs=0.013)
    clean = [not any(row) for row in wrong]
    assert all(end for end, fine in zip(right, clean, strict=True) if fine)
    assert sum(right) > sum(clean)  # two slips that cancel, or a 0
    assert found == sums.slipping(X, 0.3, answers=2, seed=5)
    assert found != sums.slipping(X, 0.3, answers=2, seed=6)
    assert [one[0] for one in sums.slipping(X, 0, 1)] == sums.text(X)["rationale"]


@pytest.mark.parametrize("slips", [-0.1, 1.1, float("nan")])
def test_a_share_out_of_range_is_told(slips):
    with pytest.raises(ValueError, match="^slipping: slips must"):
        sums.slipping(X[:2], slips, 1)


def test_load_splits_the_questions():
    task = load("sums", sizes=(300, 100, 200))
    assert [len(d) for d in (task.train, task.validation, task.test)] == [300, 100, 200]
    assert task.shape == (1, 4, 10) and task.classes == list("0123456789") and task.unit == "sums/0"
    for data in (task.train, task.validation, task.test):
        assert torch.equal(data.y, sums.steps(data.x)[:, 2])
    assert (
        len(torch.cat([task.train.x, task.validation.x, task.test.x]).flatten(1).unique(dim=0))
        == 600
    )
    assert not torch.equal(load("sums", seed=1, sizes=(300, 100, 200)).train.x, task.train.x)
    assert (
        sum(len(d) for d in (load("sums").train, load("sums").validation, load("sums").test))
        == 10_000
    )


def test_a_student_learns_the_steps_beside_the_answer():
    task = load("sums", sizes=(200, 50, 50))
    plain, taught = (
        distill(
            mlp(32),
            Rationales(),
            task,
            epochs=2,
            seeds=2,
            objective=HiddenLoss(rationale_loss, [("2", "steps")], weight=weight, project=True),
        )
        for weight in (0.0, 1.0)
    )
    assert len(taught) == 2 and taught.frame["nll"].notna().all()
    for one, other in zip(
        *(r.module(unit="sums/0", seed=0).parameters() for r in (plain, taught)), strict=True
    ):
        assert one.shape == other.shape and not torch.equal(
            one, other
        )  # no head is left, but it did teach
    with pytest.raises(
        ValueError, match=r"pair \('2', 'steps'\) does not fit. rationale_loss: .*project=True"
    ):
        distill(
            mlp(32),
            Rationales(),
            task,
            epochs=1,
            objective=HiddenLoss(rationale_loss, [("2", "steps")]),
        )
