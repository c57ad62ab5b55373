"""Predictions: asked without their answers, which a first guess brings."""

import json

import pytest

import kdlab as kd
from kdlab.lessons.exercises import Question
from kdlab.lessons.predict import questions


@pytest.mark.parametrize("name", questions())
def test_nothing_tells_the_answer_before_a_guess(name):
    asked, question = kd.predict(name), questions()[name]
    bundle, _ = asked._repr_mimebundle_(), None
    shown = json.dumps([bundle, asked.get_state(), repr(asked)], default=str, ensure_ascii=False)
    assert question.because not in shown and '"answer"' not in json.dumps(
        asked.get_state()["found"]
    )
    assert all(option in repr(asked) for option in question.options)


def test_the_first_guess_brings_the_answer_and_stands():
    asked, question = kd.predict("03.a"), questions()["03.a"]
    asked.chosen = 1
    assert asked.found == {"answer": question.answer, "because": question.because}
    asked.chosen = -1
    assert asked.found["answer"] == question.answer


def test_two_pages_of_one_question_are_alike():
    first, second = (kd.predict("03.a")._repr_mimebundle_() for _ in range(2))
    first, second = (b[0] if isinstance(b, tuple) else b for b in (first, second))
    assert first["text/html"] == second["text/html"] and "<b>Predict.</b>" in first["text/html"]
    assert first["text/plain"].startswith("Predict: ")


def test_names_say_their_lesson():
    for name, question in questions().items():
        assert name[2] == "." and len(name) == 4 and len(question.options) >= 2


@pytest.mark.parametrize("name", [None, [], "9", 3])
def test_an_unknown_question_is_named_with_those_there_are(name):
    with pytest.raises(ValueError, match=r"^predict: name must be one of \['00.a'"):
        kd.predict(name)


@pytest.mark.parametrize(
    "wrong, said",
    [
        ({"answer": 2}, "answer must be a whole number in"),
        ({"options": ("a", "a")}, "options must be two or more"),
        ({"options": 3}, "options must be a list"),
        ({"text": None}, "text must be"),
        ({"because": 3}, "because must be"),
    ],
)
def test_a_question_is_whole(wrong, said):
    right = {"text": "Which?", "options": ("a", "b"), "answer": 1, "because": "It is."}
    with pytest.raises((TypeError, ValueError), match=f"^Question: {said}"):
        Question(**right | wrong)
