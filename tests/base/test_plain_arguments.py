"""Numbers, words and paths at the edge: the value comes back, or an error that says what came."""

import math
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from kdlab.base import plain_arguments as arguments

RIGHT = [
    (arguments.whole, 3, {}),
    (arguments.whole, 1, {"least": 1, "most": 1}),
    (arguments.number, -2.5, {}),
    (arguments.number, Fraction(1, 2), {"above": 0, "below": 1}),
    (arguments.number, 1, {"low": 1, "high": 1}),
    (arguments.share, 0, {}),
    (arguments.share, 1.0, {}),
    (arguments.one_of, [1], {"options": [[1], "a"]}),
    (arguments.text, " a ", {}),
    (arguments.place, "digits", {}),
    (arguments.instance, {}, {"kind": (dict, list)}),
]


@pytest.mark.parametrize("check, value, options", RIGHT)
def test_what_is_right_comes_back(check, value, options):
    assert check("f", "key", value, **options) == value


def test_numbers_of_numpy_are_numbers_and_a_path_becomes_words():
    found = arguments.whole("f", "key", np.int64(3))
    assert found == 3 and type(found) is int
    assert arguments.number("f", "key", np.float32(0.5)) == 0.5
    assert arguments.place("f", "key", Path("a") / "b") == str(Path("a") / "b")


WRONG = [
    (arguments.whole, True, {}, "a whole number of at least 0, got True"),
    (arguments.whole, 2.0, {}, "a whole number of at least 0, got 2.0"),
    (arguments.whole, 9, {"least": 1, "most": 8}, r"a whole number in \[1, 8\], got 9"),
    (arguments.number, math.nan, {}, "a finite number, got nan"),
    (arguments.number, -math.inf, {}, "a finite number, got -inf"),
    (arguments.number, True, {}, "a finite number, got True"),
    (arguments.number, "4", {"above": 0}, "a finite number above 0, got '4'"),
    (arguments.number, 0, {"above": 0}, "a finite number above 0, got 0"),
    (arguments.number, 1, {"low": 0, "below": 1}, "a finite number at least 0 and below 1, got 1"),
    (arguments.number, 3, {"low": 0, "high": 2}, "a finite number at least 0 and at most 2, got 3"),
    (arguments.share, 1.1, {}, r"a number in \[0, 1\], got 1.1"),
    (arguments.share, math.nan, {}, r"a number in \[0, 1\], got nan"),
    (arguments.share, None, {}, r"a number in \[0, 1\], got None"),
    (arguments.one_of, "c", {"options": "ab"}, r"one of \['a', 'b'\], got 'c'"),
    (arguments.one_of, True, {"options": [1, 2]}, r"one of \[1, 2\], got True"),
    (arguments.text, 3, {}, "a string, got int"),
    (arguments.place, None, {}, "a text or a path, got NoneType"),
    (arguments.instance, 3, {"kind": dict}, "a dict, got int"),
    (arguments.instance, 3, {"kind": (dict, list), "words": "rows"}, "rows, got int"),
]


@pytest.mark.parametrize("check, value, options, words", WRONG)
def test_what_is_wrong_is_named(check, value, options, words):
    with pytest.raises((TypeError, ValueError), match=f"^f: key must be {words}$"):
        check("f", "key", value, **options)


@pytest.mark.parametrize("check", [arguments.text, arguments.place])
@pytest.mark.parametrize("value", ["", " \n"])
def test_words_that_say_nothing_are_refused(check, value):
    with pytest.raises(ValueError, match="^f: key must (not be empty|name something, got)"):
        check("f", "key", value)


def test_a_place_holds_no_null():
    with pytest.raises(ValueError, match="^f: key must name something"):
        arguments.place("f", "key", "a\0b")


def test_they_load_no_torch_and_no_numpy():
    code = "import sys, kdlab.base.plain_arguments; print({'torch', 'numpy'} & set(sys.modules))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "set()\n"
