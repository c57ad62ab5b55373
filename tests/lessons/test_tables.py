"""Tables that lessons read: as committed, or measured again for a repetition."""

import sys

import pandas as pd
import pytest

from kdlab.base.places import course_files
from kdlab.lessons import tables

RESULTS = course_files() / "benchmarks" / "results"
AGAIN = sorted(path.stem for path in (RESULTS / "again").glob("*.csv"))
ARM = {"encoders": ["student", "signal"], "answers_bought": ["arm", "answers"]}


def test_a_repetition_reads_what_was_measured_for_it(tmp_path, monkeypatch):
    results = tmp_path / "benchmarks" / "results"
    (results / "again").mkdir(parents=True)
    (results / "some.csv").write_text("arm,value,note\na,1,x\n")
    (results / "other.csv").write_text("arm,value\na,5\n")
    (results / "again" / "some.csv").write_text("repetition,arm,value,note\n1,a,2,\n2,a,3,\n")
    monkeypatch.setattr(tables, "course_files", lambda: tmp_path)
    for k, value, said in (
        ("", 1, tables.COMMITTED),
        ("2", 3, "again"),
        ("3", 1, tables.COMMITTED),
    ):
        monkeypatch.setenv("KDLAB_REPEAT", k)
        found = tables.read("some")
        assert found["value"].tolist() == [value]
        assert tables.over(found, "splits").startswith("splits; ")
        assert said in tables.over(found, "splits")
    monkeypatch.setenv("KDLAB_REPEAT", "1")
    assert list(tables.read("some")) == ["repetition", "arm", "value"]  # empty columns are gone
    assert tables.read("other")["value"].tolist() == [5]  # never measured again


def test_what_is_measured_again_replaces_its_own_repetition_alone(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(course_files() / "benchmarks"))
    import again
    import table

    monkeypatch.setattr(again, "RESULTS", tmp_path)
    monkeypatch.setenv("KDLAB_REPEAT", "")
    with pytest.raises(ValueError, match="KDLAB_REPEAT must be at least 1"):
        again.add("some", [{"value": 1}])
    for k, value in (("1", 1), ("2", 2), ("1", 3)):
        monkeypatch.setenv("KDLAB_REPEAT", k)
        again.add("some", [{"arm": "a", "value": value}, {"arm": "b", "more": 1}])
    found = pd.read_csv(tmp_path / "again" / "some.csv")
    assert found["repetition"].tolist() == [2, 2, 1, 1]
    assert found["value"].tolist()[::2] == [2, 3] and list(found) == [
        "repetition",
        "arm",
        "value",
        "more",
    ]
    # a benchmark that knows of no repetition would have put other splits into its own table
    monkeypatch.setattr(table, "RESULTS", tmp_path)
    with pytest.raises(ValueError, match="sizes.csv is no table that is measured again"):
        table.write(tmp_path / "sizes.csv", [{"value": 1}])
    assert not (tmp_path / "sizes.csv").exists()
    for k in ("", "0"):
        monkeypatch.setenv("KDLAB_REPEAT", k)
        table.write(tmp_path / "sizes.csv", [{"value": 1, "hardware": "h"}], show=False)
    sys.modules.pop("again")


def test_there_are_tables_measured_again():
    assert AGAIN, "the test below would test nothing"


@pytest.mark.parametrize("name", AGAIN)
def test_nothing_was_chosen_anew_and_every_number_was_drawn_anew(name):
    committed, found = (pd.read_csv(RESULTS / f / f"{name}.csv") for f in ("", "again"))
    if "part" in committed:
        committed = committed[committed["part"] == "test"]
    arm = ARM.get(name, ["arm"])
    for column in {"lr", "steps"} & set(committed) if name == "answers_bought" else ["lr"]:
        rates = committed.groupby(arm)[column].first()
        for k, rows in found.groupby("repetition"):
            pd.testing.assert_series_equal(rows.groupby(arm)[column].first(), rates, obj=f"{k}")
            assert len(rows) == len(committed), f"repetition {k} lacks rows"
    value = next(c for c in ("accuracy", "right", "predicts") if c in found)
    means = found.groupby("repetition")[value].mean().round(6).tolist()
    assert len({*means, round(committed[value].mean(), 6)}) == len(means) + 1
