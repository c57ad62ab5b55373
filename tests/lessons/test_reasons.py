"""Lesson 11's questions, what is bought to them, and the students that learn to write."""

import importlib
from pathlib import Path

import pytest
import torch

import kdlab as kd
from kdlab.lessons import reasons

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
FORMS = "the answer", "the answer, then steps", "steps, then the answer"


@pytest.fixture(scope="module")
def words():
    return reasons.tokenizer()


@pytest.fixture(scope="module")
def questions():
    return reasons.bought(answers=1)


def test_a_split_s_parts_share_no_question_and_each_number_has_others(questions):
    asked = questions[0]
    one, two = (reasons.split(asked, number) for number in (0, 1))
    assert len({q for part in one.values() for q in part}) == 2000 + 300 + 500
    assert set(one["test"]) != set(two["test"]) and one == reasons.split(asked, 0)


@pytest.mark.parametrize("form", FORMS)
def test_every_form_names_the_right_answer_and_no_word_is_unknown(words, questions, form):
    _, _, label = questions
    for question, text in reasons.right(form)[::501]:
        assert reasons.answer(text) == label[question]
        for part in (question, text):
            assert words.unk_token_id not in words(part)["input_ids"], part
    assert words("12")["input_ids"] == words("1 2")["input_ids"]


def test_a_text_without_an_answer_names_none():
    assert reasons.answer("1 + 2 ends in 3.") is None


def test_the_forms_tell_the_same_in_another_order():
    first, last = (sorted(reasons.right(form)[1234][1].split()) for form in FORMS[1:])
    assert first == last


def test_labels_stand_on_the_answer_and_its_end(words, monkeypatch):
    """What `taught` hands on is seen in the loss: questions are never learnt."""
    seen = []
    monkeypatch.setattr(
        torch.nn.functional,
        "cross_entropy",
        lambda logits, labels: seen.append(labels) or logits.sum() * 0,
    )
    pairs = reasons.right("the answer")[:40]
    reasons.taught(pairs, words, 1e-3, [1], lambda model: None)
    (labels,) = seen
    learnt = labels.view(32, -1)
    told = [words.decode(row[row >= 0]) for row in learnt]
    assert all(text.startswith("The answer is ") and text.endswith("<s>") for text in told)


def test_a_student_learns_what_it_is_shown_and_writes_it(words):
    pairs = [("1 + 2", "The answer is 3.")] * 32
    model = reasons.taught(pairs, words, 1e-2, [60], lambda model: model)[60]
    assert reasons.writes(model, words, ["1 + 2"]) == ["The answer is 3 ."]
    assert reasons.right_of(model, words, ["1 + 2"], {"1 + 2": "3"}) == 100
    assert reasons.right_of(model, words, ["1 + 2"], {"1 + 2": "4"}) == 0


@pytest.mark.parametrize(
    ("pairs", "told"),
    [
        ([("1 + 2", "The answer is 3.")] * 31, "rows must hold at least 32, a step's, got 31"),
        (
            [("1 + 2", "The answer is 3.")] * 31 + [("1 + 2 + 3", "The answer is 6.")],
            "pairs must be of one form, so that all are as long, got 9 to 11 tokens",
        ),
    ],
)
def test_too_few_pairs_and_forms_mixed_are_told(words, pairs, told):
    with pytest.raises(ValueError, match=told):
        reasons.taught(pairs, words, 1e-3, [1], lambda model: None)


def test_students_of_one_seed_begin_alike_and_of_another_differently(words):
    first, same, other = (reasons.student(words, seed).state_dict() for seed in (0, 0, 1))
    assert all(first[name].equal(same[name]) for name in first)
    assert not all(first[name].equal(other[name]) for name in first)
    assert kd.parameters(reasons.student(words)) == 108_608


def test_the_benchmark_s_arms_learn_the_split_s_questions_and_as_many_as_are_right(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    bench = importlib.import_module("reasons")
    questions, said, label = bench.purchase(1)
    own = set(reasons.split(questions, 1)["train"])
    learnt = {arm: bench.pairs_of(arm, 1) for arm in (*bench.FORMS, *bench.SLIPPED)}
    for arm, pairs in learnt.items():
        assert {question for question, _ in pairs} <= own, arm
    every, kept, blind = (learnt[arm] for arm in bench.SLIPPED)
    assert len(every) == 4 * 2000 and len(blind) == len(kept) < len(every) / 2
    assert all(kd.last_number(text) == label[question] for question, text in kept)
    assert 0.3 < sum(kd.last_number(text) == label[q] for q, text in blind) / len(blind) < 0.5
    assert all(len(learnt[form]) == 2000 for form in bench.FORMS)
