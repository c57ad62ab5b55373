"""What is asked, and what a right answer is: a file a lesson, with EXERCISES and QUESTIONS."""

import inspect
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from kdlab.base import arguments


@dataclass(frozen=True)
class Exercise:
    """One exercise: `test(attempt)` gives "" where it is right, else what to look at, a sentence.

    name: "LL.n", the n-th of lesson LL. solution: a function, which a lesson can then run in the
    learner's place; or, where an answer is no function, Python source that defines the name
    `attempt`. mistakes: {a word of the sentence to expect: a wrong attempt, a function or source},
    planted by the tests so that every check is known to catch something.
    """

    name: str
    test: Callable
    hints: tuple[str, ...]
    solution: Callable | str
    mistakes: Mapping[str, Callable | str]

    @property
    def source(self) -> str:
        """The solution as a learner reads it."""
        if isinstance(self.solution, str):
            return self.solution.strip()
        return textwrap.dedent(inspect.getsource(self.solution)).strip()


@dataclass(frozen=True)
class Question:
    """What is asked before an experiment; it stands here, so that no page holds its answer.

    text: the question. options: what there is to choose from. answer: the number of the right one,
    from 0. because: a sentence or two on why.

    >>> Question("Which is larger?", ("1", "2"), 1, "It comes later.").right
    '2'
    """

    text: str
    options: tuple[str, ...]
    answer: int
    because: str

    def __post_init__(self):
        arguments.text("Question", "text", self.text)
        arguments.text("Question", "because", self.because)
        options = arguments.listed("Question", "options", self.options)
        if len(options) < 2 or len(set(options)) < len(options):
            raise ValueError(
                f"Question: options must be two or more that differ, got {self.options!r}"
            )
        arguments.whole("Question", "answer", self.answer, most=len(options) - 1)

    @property
    def right(self) -> str:
        """The option that is right."""
        return self.options[self.answer]
