"""What nbval masks and what it compares: tests/sanitize.cfg by itself, then through nbval."""

import re
import runpy

import nbformat
import pytest
from nbval.plugin import get_sanitize_patterns
from test_tools import ROOT, TOOLS, run, write

SANITIZE = ROOT / "tests" / "sanitize.cfg"


LESSONS = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
KINDS = "text/plain", "text/html"


def mask(text):
    for pattern, replacement in get_sanitize_patterns(SANITIZE.read_text(encoding="ascii")):
        text = re.sub(pattern, replacement, text)
    return text


INT8 = "int8: -0.6 points, with these images between -2.3 and 1.2"


@pytest.mark.parametrize(
    "old, new",
    [
        ("gain +0.71 ± 0.31 points", "gain -1.2 ± 0.5 points"),
        ("97.42 ± 0.5", "9.1 ± 12"),
        (
            '<img alt="a" src="data:image/png;base64,iVBO+/=">',
            '<img alt="a" src="data:image/png;base64,aaaa">',
        ),
        (
            '<img alt="gain +0.71 ± 0.31 (> 0)" src="data:image/svg+xml;base64,PHN2+/=">',
            '<img alt="gain +0.69 ± 0.28 (> 0)" src="data:image/svg+xml;base64,aaaa">',
        ),
        (
            "kdlab on cpu · 2 threads · float32 weights · scale quick · seed 0",
            "kdlab on NVIDIA H200 · 8 threads · float32 weights · scale full · seed 0",
        ),
        (
            'split 1, +0.83 points, "helps" is what this laptop would send.',
            'split 1, -1.11 points, "helps" is what this laptop would send.',
        ),
        ("agree on 96.7 % (94.2 to 98.1).", "agree on 6.8 % (4.0 to 8.1)."),
        ("int8: +0.0 points, with these images between -0.8 and 0.8", INT8),
        (
            "gets 96.9 % right, the student 95.0 %: −1.9 points (−4.4 to 0.5).",
            "gets 97.0 % right, the student 95.1 %: −1.8 points (−4.3 to 0.6).",
        ),
        (
            "repeats 7 of the teacher's 11 mistakes, and makes 8 where the teacher is right",
            "repeats 6 of the teacher's 10 mistakes, and makes 9 where the teacher is right",
        ),
        ('<td style="a">96.9</td>', '<td style="a">100.0</td>'),
        (
            '<path d="M109.1 9.0H138.4"/><circle cx="123.7"',
            '<path d="M6.0 9.0H173.7"/><circle cx="87.4"',
        ),
        ("Loss of each step: 2.41 2.31 1.44", "Loss of each step: 2.40 2.31 1.4"),
        ("trained in 12.3 s", "trained in 4 s"),
        ("40 ms", "3.5 ms"),
        ("2 min 5 s", "58 s"),
        ("<function f at 0x7f00aa11bb>", "<function f at 0x7ffffffff0>"),
        ("ok      memory         1.2 GiB free\nend", "missing  memory         0.2 GiB free\nend"),
    ],
)
def test_masked(old, new):
    assert mask(old) == mask(new)


@pytest.mark.parametrize(
    "old, new",
    [
        ("+0.71 ± 0.31: helps", "+0.71 ± 0.31: hurts"),
        ("gain 1.0 ± 0.2 (> 0)", "gain 1.0 ± 0.2 (> 1)"),
        ("97.42", "97.43"),
        ("8 splits", "7 splits"),
        ('split 1, +0.83 points, "helps"', 'split 2, +0.83 points, "helps"'),
        ('split 1, +0.83 points, "helps"', 'split 1, +0.83 points, "hurts"'),
        ("4 seeds", "5 seeds"),
        ("gain nan ± nan", "gain 1.0 ± 0.2"),
        (
            '<img alt="rises" src="data:image/png;base64,aa">',
            '<img alt="falls" src="data:image/png;base64,aa">',
        ),
        ("kdlab on cpu · seed 0", "kdlab on cpu · seed 1"),
        ("Claim (helps): a", "Claim (helps a little): a"),
        ("Claim (holds): a", "Claim (does not hold here): a"),
        ("T 4", "T 8"),
    ],
)
def test_compared(old, new):
    assert mask(old) != mask(new)


def test_nbval_sees_a_changed_verdict_and_passes_a_changed_number(tmp_path):
    cell = "print('gain +0.71 ± 0.31: helps')"
    changes = {
        "same": None,
        "number": ("0.71 ± 0.31", "0.69 ± 0.28"),
        "verdict": ("helps", "hurts"),
    }
    same = write(tmp_path / "same.ipynb", cell)
    assert run(TOOLS / "execute.py", same)[0] == 0
    for name, change in changes.items():
        notebook = nbformat.read(same, as_version=4)
        out = notebook.cells[1].outputs[0]
        out.text = out.text.replace(*change) if change else out.text
        nbformat.write(notebook, tmp_path / f"{name}.ipynb")
    write(
        tmp_path / "stripped.ipynb", cell
    )  # nbval passes it: test_notebooks.executed is what catches it
    check = runpy.run_path(TOOLS / "check.py")
    options = [
        option
        for option in check["NBVAL"]
        if option.startswith("--nbval") and "sanitize" not in option
    ]
    status, said = run(
        "-c",
        check["LEAN"],
        "-v",
        "--color=no",
        "-p",
        "no:cacheprovider",
        *options,
        f"--nbval-sanitize-with={SANITIZE}",
        *(tmp_path / f"{n}.ipynb" for n in [*changes, "stripped"]),
    )
    found = dict(re.findall(r"(\w+)(?:\.|::)ipynb::Cell 0 (PASSED|FAILED)", said))
    assert found == {
        "same": "PASSED",
        "number": "PASSED",
        "verdict": "FAILED",
        "stripped": "PASSED",
    }, said
    assert status == 1


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_no_interval_of_a_lesson_is_compared_with_that_of_another_machine(path):
    outputs = [o for c in nbformat.read(path, 4).cells for o in c.get("outputs", [])]
    told = [o["text"] for o in outputs if "text" in o]
    told += [o["data"].get(kind, "") for o in outputs if "data" in o for kind in KINDS]
    number = r"[+−-]?\d+\.\d+"
    interval = rf"\({number} to {number}\)|between {number} and {number}|{number} ± {number}"
    assert [found for text in told for found in re.findall(interval, mask(text))] == []
