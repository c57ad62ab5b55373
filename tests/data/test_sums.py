"""Sums: every step against plain arithmetic, the rationales read back, the loss against torch's
cross-entropy."""

import itertools
import re

import pytest
import torch
import torch.nn.functional as F

from kdlab import HiddenLoss, distill, load, mlp
from kdlab.data import sums
from kdlab.losses.rationale import rationale_loss
from kdlab.teachers.outputs import hidden
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


def said(teacher, x):
    """The two digits of the layer `steps`, as shares (N, 2, 10), and the answer (N, 10)."""
    layer = hidden(teacher, x, ["steps"])["steps"]
    assert layer.shape == (len(x), 20) and layer.dtype == torch.float32
    return layer.unflatten(1, (2, 10)), teacher(x)


def test_the_default_says_the_right_steps_of_every_question():
    shares, logits = said(Rationales(), X)
    right = torch.tensor(STEPS)
    assert torch.equal(shares, F.one_hot(right[:, :2], 10).float())
    assert torch.equal(logits, 10 * F.one_hot(right[:, 2], 10).float())
    assert not list(Rationales().parameters()) and not Rationales().state_dict()


def test_several_rationales_are_their_mean_and_none_is_nothing_to_learn():
    asked = sums.text(X)["input"]
    told = [
        f"1 + 2 ends in {s}. {s} · 3 ends in {p}. …" for s, p in [(3, 9), (3, 9), (3, 1), (4, 2)]
    ]
    teacher = Rationales([(asked[1234], one) for one in told])
    shares, logits = said(teacher, X[[1234, 1235]])
    assert shares[0, 0].tolist() == [0, 0, 0, 0.75, 0.25, 0, 0, 0, 0, 0]
    assert shares[0, 1].tolist() == [0, 0.25, 0.25, 0, 0, 0, 0, 0, 0, 0.5]
    assert not shares[1].any() and logits.argmax(-1).tolist() == [3, 4]
    student = torch.randn(2, 20, requires_grad=True)
    rows = rationale_loss(student, shares.flatten(1), reduction="rows")
    assert rows[1] == 0 and not torch.autograd.grad(rows.sum(), student)[0][1].any()


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


@pytest.mark.parametrize(
    "said, words",
    [
        ([("What?", "1 ends in 2. 2 ends in 3.")], "read: question and rationale must be as"),
        ([(sums.text(X[:1])["input"][0], "It is 3.")], "read: question and rationale must be as"),
        (["ab"], "Rationales: said must be pairs"),
        ([("one", "two", "three")], "Rationales: said must hold pairs"),
        (3, "Rationales: said must be pairs"),
    ],
)
def test_what_is_no_rationale_is_told(said, words):
    with pytest.raises((TypeError, ValueError), match=f"^{words}"):
        Rationales(said)


@pytest.mark.parametrize("slips", [-0.1, 1.1, float("nan")])
def test_a_share_out_of_range_is_told(slips):
    with pytest.raises(ValueError, match="^slipping: slips must"):
        sums.slipping(X[:2], slips, 1)


def test_rationale_loss_is_two_cross_entropies():
    generator = torch.Generator().manual_seed(0)
    student = torch.randn(7, 20, dtype=torch.float64, generator=generator, requires_grad=True)
    digits = torch.randint(10, (7, 2), generator=generator)
    teacher = F.one_hot(digits, 10).flatten(1).double()
    expected = sum(
        F.cross_entropy(student[:, 10 * i : 10 * i + 10], digits[:, i], reduction="none")
        for i in (0, 1)
    )
    torch.testing.assert_close(rationale_loss(student, teacher, reduction="rows"), expected)
    torch.testing.assert_close(rationale_loss(student, teacher), expected.mean())
    (ours,) = torch.autograd.grad(rationale_loss(student, teacher), student)
    (theirs,) = torch.autograd.grad(expected.mean(), student)
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize(
    "student, teacher, options, words",
    [
        (
            (4, 10),
            (4, 20),
            {},
            r"student and teacher must be digits \(B, 20\), got \(4, 10\) and \(4, 20\)",
        ),
        ((4, 12), (4, 12), {}, "student and teacher must be digits"),
        ((4, 20), (4, 20), {"reduction": "sum"}, "reduction must be 'mean' or 'rows', got 'sum'"),
    ],
)
def test_what_does_not_fit_is_told(student, teacher, options, words):
    with pytest.raises(ValueError, match=f"^rationale_loss: {words}"):
        rationale_loss(torch.zeros(student), torch.zeros(teacher), **options)


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
