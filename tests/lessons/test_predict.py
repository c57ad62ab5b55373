"""Predictions: asked without their answers, which a first guess brings."""

import html
import json
import re
from pathlib import Path

import nbformat
import pytest

import kdlab as kd
from kdlab.lessons.checks import lessons
from kdlab.lessons.exercises import Question, lesson03
from kdlab.lessons.predict import questions


def seen(asked):
    """What a page is handed, by its kind."""
    bundle = asked._repr_mimebundle_()
    return bundle[0] if isinstance(bundle, tuple) else bundle


@pytest.mark.parametrize("name", questions())
def test_nothing_tells_the_answer_before_a_guess(name):
    asked, question = kd.predict(name), questions()[name]
    state = asked.get_state()
    shown = json.dumps(
        [asked._repr_mimebundle_(), state, repr(asked)], default=str, ensure_ascii=False
    )
    assert question.because not in shown and html.escape(question.because) not in shown
    assert state["found"] == {} and state["chosen"] == -1
    assert all(option in repr(asked) for option in question.options)


def test_what_the_page_is_given_is_the_same_whichever_option_is_right(monkeypatch):
    pages = []
    for answer in (0, 1):
        question = Question("Which?", ("a", "b"), answer, "It is.")
        monkeypatch.setitem(lesson03.QUESTIONS, "03.a", question)
        asked = kd.predict("03.a")
        state = asked.get_state()
        del state["layout"]  # a number of its own
        pages.append([state, repr(asked), seen(asked)["text/html"]])
    assert pages[0] == pages[1]


def test_the_first_guess_brings_the_answer_and_stands():
    asked, question = kd.predict("03.a"), questions()["03.a"]
    asked.chosen = 1
    assert asked.found == {"answer": question.answer, "because": question.because}
    asked.chosen = -1
    assert asked.found["answer"] == question.answer


def test_without_a_kernel_a_page_says_where_the_answer_is():
    for told in (seen(kd.predict("03.a"))["text/html"], repr(kd.predict("03.a"))):
        assert "the answers of all lessons stand on one page" in told


def test_two_pages_of_one_question_are_alike():
    first, second = (seen(kd.predict("03.a")) for _ in range(2))
    assert first["text/html"] == second["text/html"] and "<b>Predict.</b>" in first["text/html"]
    assert first["text/plain"].startswith("Predict: ")


def test_names_say_their_lesson_and_their_place_in_it():
    for lesson in lessons():
        names = list(getattr(lesson, "QUESTIONS", {}))
        number = lesson.__name__[-2:]
        assert names == [f"{number}.{letter}" for letter, _ in zip("abcdefgh", names, strict=False)]


def test_every_question_is_asked_once_and_in_its_own_lesson():
    notebooks = Path(__file__).parents[2] / "notebooks"
    asked = [
        (path.stem[:2], name)
        for path in sorted(notebooks.glob("[0-9][0-9]_*.ipynb"))
        for cell in nbformat.read(path, 4).cells
        for name in re.findall(r'kd\.predict\("(.*?)"\)', cell.source)
    ]
    assert [name for _, name in asked] == list(questions())
    assert all(name.startswith(f"{number}.") for number, name in asked)


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
