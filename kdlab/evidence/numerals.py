"""Numbers as people and models write them, brought to one plain form."""

import re
from fractions import Fraction
from typing import Any
from unicodedata import normalize

LONG = 300  # digits; beyond them a piece stands as it is, since 1e999999999 would fill the memory
SPACE = "[ \u00a0\u2007\u2009\u202f]"  # a space, also of no break, a figure's width, thin, narrow
VULGAR = "[¼-¾⅐-⅞]"

# what comes before reading: a pattern and what takes its place
TIDY: list[tuple[re.Pattern, Any]] = [
    (re.compile(r"(?<=\d)(?:\{,\}|\\[,;: ])(?=\d)"), ","),  # LaTeX: 1{,}000 and 1\,000
    (re.compile(rf"(?<=\d)(?=\\[dt]?frac|{VULGAR})"), " "),  # 1½ is 1 1/2, not 11/2
    (re.compile(r"\\[dt]?frac\{(\d+)\}\{(\d+)\}"), r"\1/\2"),
    (re.compile(VULGAR), lambda found: normalize("NFKC", found[0])),
    (re.compile("⁄"), "/"),
    (re.compile(r"(?<=[\w)])[⁻⁰¹²³⁴-⁹]+"), lambda found: "^" + normalize("NFKC", found[0])),
    (re.compile(r"((?<![A-Za-z])[cdkm]?m)\^?[23](?!\w)"), r"\1"),  # square metres are no 2
    (re.compile(r"([A-Za-z])(?:\^|\*\*)\{?[-−]?\d+\}?"), r"\1"),  # nor are other powers of letters
    (
        re.compile(rf"(?<!\d)(?<!\d[.,/:^'’])([1-9]\d{{0,2}}(?:{SPACE}\d{{3}})+)(?!\d)"),
        lambda found: re.sub(SPACE, "'", found[0]),  # 12 345 678 is one number
    ),
]

# a sign stands before no word, number or bracket: 10-12 is a range, and so is 5%-10%
BEFORE = r"(?<![\w.)\]}%°])(?<!\d[$€£])(?<!\d [$€£])"
SIGN = rf"(?P<sign>{BEFORE}[-−–]|(?<== )[-−–] )?\\?[$€£]?"
DATE = r"(?P<date>\d{4}-\d\d-\d\d)(?!\d)"
MIXED = r"(?:(?P<whole>\d+) (?=\d+/\d+(?![/.,:]?\d)))?"
BODY = r"(?P<body>\d+(?:[.,'’_/:]\d+)*|\.\d+)"
# 2.5e-4, or 2.5 × 10^-4
TIMES = rf"(?:{SPACE}?(?:[×·⋅*x]|\\times|\\cdot){SPACE}?10)"
POWER = rf"(?:[eE](?P<e>[-−+]?\d+)|(?P<times>{TIMES})?(?:\^|\*\*)\{{?(?P<power>[-−+]?\d+)\}}?)?"
PIECE = re.compile(SIGN + f"(?:{DATE}|{MIXED}{BODY}{POWER})")

# thousands by a comma, an apostrophe or a low line, or as in India; behind them a point
ENGLISH = re.compile(
    r"(?:\d+|[1-9]\d{0,2}([,'’_])\d{3}(?:\1\d{3})*|[1-9]\d?(?:,\d\d)+,\d{3})?(?:\.\d+)?"
)
# a decimal comma, thousands by an apostrophe or a point; without a comma two points or more
CONTINENTAL = re.compile(
    r"(?:\d+|[1-9]\d{0,2}(['’_.])\d{3}(?:\1\d{3})*),\d+|[1-9]\d{0,2}(?:\.\d{3}){2,}"
)


def last_numeral(text: str) -> str | None:
    """The last number of a text in plain form: digits with at most a sign and a point, or n/d.

    What is written in one piece is read in one piece, and stands as it is where it is no number:
    a date, a time, a list without spaces. None where there is none. See `last_number`.

    >>> last_numeral("at 3:45 it is -1 250,50"), last_numeral("at 3:45")
    ('-1250.5', '3:45')
    """
    for pattern, instead in TIDY:
        text = pattern.sub(instead, text)
    *_, last = None, *PIECE.finditer(text)
    return last and _plain(last)


def _plain(found):
    """A match of PIECE in plain form."""
    value = None if found["date"] or len(found[0]) > LONG else _read(found)
    if value is None:
        return re.sub(r"[\\$€£ ]", "", found[0]).replace("–", "-").replace("−", "-")
    return _written(-value if found["sign"] else value)


def _read(found):
    """The value without its sign, or None where it is no number."""
    parts = [_value(part) for part in found["body"].split("/")]
    if None in parts or len(parts) > 2 or parts[1:] == [0]:
        return None
    value = parts[0] / parts[1] if len(parts) == 2 else parts[0]
    if found["whole"] and value < 1:  # 1 1/2; in "2020 5/3" they are two
        value += int(found["whole"])
    power = found["e"] or found["power"]
    if power is None:
        return value
    power = int(power.replace("−", "-"))
    if found["power"] and not found["times"]:  # 10^5, but no other power, is a number
        value, power = (1, power) if value == 10 else (value, LONG + 1)
    return value * Fraction(10) ** power if abs(power) <= LONG else None


def _value(digits):
    """The number that digits with commas, points and apostrophes between them are, or None."""
    if ENGLISH.fullmatch(digits):
        return Fraction(re.sub("[,'’_]", "", digits))
    if CONTINENTAL.fullmatch(digits):
        return Fraction(re.sub("['’_.]", "", digits).replace(",", "."))
    return None


def _written(value):
    """A fraction as a decimal where that ends, else as n/d in lowest terms."""
    below = value.denominator
    places = next((k for k in range(below.bit_length()) if 10**k % below == 0), None)
    if places is None:
        return str(value)
    digits = str(abs(value.numerator) * 10**places // below).rjust(places + 1, "0")
    whole, behind = digits[: len(digits) - places], digits[len(digits) - places :]
    return ("-" if value < 0 else "") + whole + ("." + behind if behind else "")
