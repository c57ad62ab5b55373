"""What nbval masks and what it compares: tests/sanitize.cfg by itself, then through nbval."""

import re
import runpy

import nbformat
import pytest
from nbval.plugin import get_sanitize_patterns
from test_tools import ROOT, TOOLS, run, write

SANITIZE = ROOT / "tests" / "sanitize.cfg"


def mask(text):
    for pattern, replacement in get_sanitize_patterns(SANITIZE.read_text(encoding="ascii")):
        text = re.sub(pattern, replacement, text)
    return text


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
