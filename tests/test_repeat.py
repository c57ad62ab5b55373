"""tools/repeat.py: a lesson's claims counted over fresh splits, each run in a kernel of its own."""

import re
import runpy
import sys

import pandas as pd
import pytest
from scipy import stats
from test_tools import TOOLS, run, write

KEPT = "lesson,sentence,held,of,mean_margin,least_margin,flips,hardware,machine,torch\n"
AGAIN = "measured again once"
CELLS = [
    "import pandas as pd, kdlab as kd\ntasks = kd.splits('digits', 4)",
    "k = tasks[0].seed // 1000\n"
    "def gain(mean):\n"
    "    values = [mean - 1, mean, mean, mean + 1]\n"
    "    return kd.Estimate(pd.Series(values, [t.unit for t in tasks]), 'gain', 'points')",
    "kd.claim('always, \"surely\"', gain(2 + k) > 0)",
    "kd.claim('off a table', kd.Estimate(pd.Series([1.0, 2, 3, 4]), 'gain', 'points') > 0)",
    "same = [pd.Series([mean] * 4, [t.unit for t in tasks]) for mean in (5.0, 0.0)]\n"
    "kd.claim('far off, and off a table', kd.Estimate(same[0], 'gain', 'points') > 0)\n"
    "kd.claim('equal to the last digit', kd.Estimate(same[1], 'gain', 'points').within(0.5))",
    "from kdlab.lessons import tables\n"
    "told = tables.over({'repetition'} if k == 2 else set(), 'fields')\n"
    "kd.claim('measured again once', kd.Estimate(\n"
    "    pd.Series([5.0, 6, 6, 5 + k]), 'gain', 'points', 1, told) > 0)",
    "print('told, not claimed')",
    "kd.claim('never at 60 epochs', {'30 epochs': gain(2) > 0, '60 epochs': gain(2 - k) > 0})",
]


def test_every_run_draws_its_own_splits_and_the_table_counts_them(tmp_path):
    lesson, table = write(tmp_path / "02_lesson.ipynb", *CELLS), tmp_path / "claims.csv"
    before = lesson.read_bytes()
    table.write_text(KEPT + "01_other,stays,20,20,5.0,3.1,,,,\n02_lesson,gone,1,20,0.1,-9.0,,,,\n")
    asked = [TOOLS / "repeat.py", lesson, "--ledger", table, "--runs", tmp_path / "runs", "--times"]
    assert run(*asked, 1)[0] == 0
    status, said = run(*asked, 2)
    assert status == 0, said
    assert "run 1 was kept" in said and "run 2 was kept" not in said  # what is done stays done
    assert "2 of 2  margin" in said and "[60 epochs (2)]" in said
    same = re.findall("not counted, it is the same in every run: (.*)", said)
    assert same == ["off a table", "far off, and off a table"]
    rows = pd.read_csv(table, keep_default_na=False)
    lesson_rows = [
        'always, "surely"',
        *same,
        "equal to the last digit",
        AGAIN,
        "never at 60 epochs",
    ]
    assert rows["sentence"].tolist() == ["stays", *lesson_rows]
    assert rows["lesson"].tolist() == ["01_other"] + ["02_lesson"] * 6
    _, sure, one, two, equal, again, flips = (row for _, row in rows.iterrows())
    for row in (one, two):
        assert (row["held"], row["of"], row["mean_margin"], row["flips"]) == (0, 0, "", "")
    assert (equal["held"], equal["of"], float(equal["least_margin"])) == (2, 2, 99)
    assert (again["held"], again["of"]) == (1, 1)  # in the other run it is read off a table
    error = stats.sem([-1, 0, 0, 1])
    assert (sure["held"], sure["of"], sure["flips"]) == (2, 2, "")
    assert float(sure["mean_margin"]) == pytest.approx(3.5 / error, abs=0.05)
    assert float(sure["least_margin"]) == pytest.approx(3 / error, abs=0.05)
    assert (flips["held"], flips["of"], flips["flips"]) == (0, 2, "60 epochs (2)")
    assert float(flips["least_margin"]) == 0 and sure["machine"] and sure["torch"]
    assert lesson.read_bytes() == before
    here = ["02_lesson.ipynb", "claims.csv", "runs"]
    assert sorted(path.name for path in tmp_path.iterdir()) == here
    (folder,) = (tmp_path / "runs").iterdir()
    assert sorted(p.name for p in folder.iterdir()) == ["1.jsonl", "1.txt", "2.jsonl", "2.txt"]
    assert "told, not claimed" in (folder / "1.txt").read_text()

    # claims off tables alone: the other rows stay
    edited = table.read_text().replace('surely""",2,2', 'surely""",19,20')
    table.write_text(re.sub(f"{AGAIN},1,1,.*", f"{AGAIN},0,0,,,,,,", edited))
    status, said = run(*asked, 2, "--tables")
    assert status == 0 and "surely" not in said and AGAIN in said
    rows = pd.read_csv(table, keep_default_na=False).set_index("sentence")
    assert rows.loc['always, "surely"', ["held", "of"]].tolist() == [19, 20]
    assert rows.loc[AGAIN, ["held", "of"]].tolist() == [1, 1]


STOPS = {"1 / 0": "ZeroDivisionError", "x = 1": "02_lesson.ipynb: claims nothing"}


@pytest.mark.parametrize("cell", STOPS)
def test_a_lesson_that_stops_or_claims_nothing_leaves_the_table_as_it_was(
    cell, tmp_path, monkeypatch
):
    """The tool in this process, where torch is imported already."""
    lesson, table = write(tmp_path / "02_lesson.ipynb", cell), tmp_path / "claims.csv"
    table.write_text(KEPT)
    for name in ("KDLAB_REPEAT", "KDLAB_CLAIMS", "KDLAB_LEDGER"):
        monkeypatch.setenv(name, "")  # the tool sets them: put back afterwards
    monkeypatch.setattr(sys, "path", [str(TOOLS), *sys.path])
    monkeypatch.setattr(
        sys,
        "argv",
        ["repeat.py", str(lesson), "--times", "1", "--ledger", str(table), "--runs", str(tmp_path)],
    )
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(TOOLS / "repeat.py"), run_name="__main__")
    assert STOPS[cell] in ended.value.code  # words: Python prints them and ends with status 1
    assert table.read_text() == KEPT
