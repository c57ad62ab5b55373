"""benchmarks/real_lm.py: its measures by plain loops, and the whole of it on small models."""

import math
import os
import re
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch

import kdlab as kd

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))
import real_lm  # noqa: E402

COMMANDS = re.findall(  # without the first, which shows the options
    r"python benchmarks/real_lm\.py ([^\[\n]+)$",
    real_lm.__doc__.replace("\\\n", ""),
    re.MULTILINE,
)
SHARED = Path(__file__).parents[2] / "shared"
MODELS = Path(os.environ.get("KDLAB_MODELS") or SHARED / "models")
DATA = Path(os.environ.get("KDLAB_DATA") or SHARED / "data")
SMALL = "--length 32 --batch 4 --windows 12 --held 6 --marks 0 2 3 --rates 1e-3 3e-3 --seeds 2"
here = pytest.mark.skipif(
    not (MODELS / "stories260K").is_dir() or not (DATA / "tinystories").is_dir(),
    reason="no KDLAB_MODELS with stories260K and KDLAB_DATA with tinystories",
)


def test_words_are_those_that_are_guessed_whole():
    model, tokenizer = kd.language_model("docs_lm")
    rows = kd.text.windows(tokenizer, kd.plain_text("web")["test"], 64)[:5]
    starts = real_lm.begins(tokenizer, model.config.vocab_size)
    right, words, nats = 0, 0, []
    for ids in rows:
        with torch.no_grad():
            logits = model(ids[None]).logits[0]
        nats += [-logits[i - 1].log_softmax(-1)[ids[i]].item() for i in range(real_lm.GIVEN, 64)]
        first = [i for i in range(real_lm.GIVEN, 64) if tokenizer.decode(ids[i]).startswith(" ")]
        for begin, end in zip(first, first[1:], strict=False):  # the last may be cut
            words += 1
            right += all(logits[i - 1].argmax() == ids[i] for i in range(begin, end))
    found = real_lm.read(model, rows, starts, batch=2)
    assert words > 50 and 0 < right < words
    assert found["words"] == pytest.approx(100 * right / words)
    assert found["nats"] == pytest.approx(sum(nats) / len(nats), rel=1e-5)


@pytest.mark.parametrize(
    "model, texts",
    [("docs_base", "web"), pytest.param("stories260K", "tinystories", marks=here)],
)
def test_the_table_on_a_small_model(model, texts, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("KDLAB_MODELS", str(MODELS))
    monkeypatch.setenv("KDLAB_DATA", str(DATA))
    out = tmp_path / "real.csv"
    line = f"--model {model} --texts {texts} {SMALL} --top 9 --new 4 --out {out}"
    real_lm.main(line.split())
    table = pd.read_csv(out)
    students = table[table["step"].notna()]
    assert set(students["arm"]) == set(real_lm.ALL)
    assert students.groupby(["arm", "seed"]).size().eq(3).all()
    assert students.groupby("arm")["lr"].nunique().eq(1).all()
    first = students[students["step"] == 0].groupby("seed")[["nats", "words", "writes"]]
    assert first.nunique().eq(1).all(axis=None)  # all arms begin as the same student
    last = students[students["step"] == 3].set_index(["arm", "seed"])["nats"]
    start = students[students["step"] == 0].set_index(["arm", "seed"])["nats"]
    assert (last["labels"] < start["labels"]).all()
    assert last.unstack().nunique().gt(1).all()  # and part from there
    own = table[table["step"].isna()].set_index(["arm", "seed"])["nats"]
    assert (own["the teacher"] < start["labels"]).all()
    # rows of other texts stay; of the same, new ones take the old ones' place and say the same
    pd.concat([table, table.assign(texts="others")]).to_csv(out, index=False)
    real_lm.main([*line.split(), "--arms", "labels"])
    again = pd.read_csv(out)
    assert again["texts"].value_counts().to_dict() == {"others": len(table), texts: 2 * 3 + 4}
    pd.testing.assert_frame_equal(
        again.query("texts == @texts and arm == 'labels'").reset_index(drop=True),
        table.query("arm == 'labels'").reset_index(drop=True),
    )


def test_a_tuned_teacher_reads_better_and_the_teacher_stays_as_it_was(tmp_path):
    line = f"--model docs_base --texts web {SMALL} --marks 0 5 10 --rates 3e-3 --top 5 --new 4"
    bench = real_lm.Bench(real_lm.options(line.split()), tmp_path)
    before = [p.clone() for p in bench.teacher.parameters()]
    measure = bench.nats_of(1, "train")
    assert measure(bench.tuned(1)) < measure(bench.teacher)
    assert all(map(torch.equal, before, bench.teacher.parameters()))
    assert bench.tuned(1) is bench.tuned(1) and not any(
        p.requires_grad for p in bench.tuned(1).parameters()
    )
    assert bench.half().config.num_hidden_layers == math.ceil(
        bench.teacher.config.num_hidden_layers / 2
    )


def test_windows_are_no_ones_twice_and_too_few_are_told(tmp_path):
    told = real_lm.options(f"--model docs_lm --texts web {SMALL}".split())
    _, tokenizer = kd.language_model("docs_lm")
    parts = real_lm.divided(told, tokenizer)
    rows = [
        tuple(row) for seed in parts.values() for part in seed.values() for row in part.tolist()
    ]
    assert len(rows) == 2 * (12 + 6 + 6)
    texts = kd.plain_text("web")
    held = {tuple(r) for r in kd.text.windows(tokenizer, texts["test"], 32).tolist()}
    assert all(tuple(row) in held for seed in parts.values() for row in seed["test"].tolist())
    with pytest.raises(SystemExit, match="web has .* windows to train, and 2 seeds want 999"):
        told.windows = 99_990
        real_lm.divided(told, tokenizer)


def test_the_commands_in_its_words_are_those_of_the_committed_rows():
    table = pd.read_csv(real_lm.RESULTS)
    asked = [real_lm.options(line.split()) for line in COMMANDS]
    assert {(one.model, one.texts) for one in asked} == set(
        table[["model", "texts"]].itertuples(index=False, name=None)
    )
    for one in asked:
        rows = table[(table["model"] == one.model) & (table["texts"] == one.texts)]
        for column in ("length", "batch", "top"):
            assert set(rows[column]) == {getattr(one, column)}
        assert set(rows["lr"].dropna()) <= set(one.rates)
        students = rows[rows["step"].notna()]
        assert sorted(set(students["step"])) == one.marks
        assert set(rows["seed"]) == set(range(one.seeds)) and set(students["arm"]) == set(one.arms)
    assert set(table["lr"].dropna()) == {rate for one in asked for rate in one.rates}


@here
def test_the_committed_rows_start_from_the_windows_of_those_commands(tmp_path, monkeypatch):
    monkeypatch.setenv("KDLAB_MODELS", str(MODELS))
    monkeypatch.setenv("KDLAB_DATA", str(DATA))
    table = pd.read_csv(real_lm.RESULTS).query("texts == 'tinystories'")
    line = next(line for line in COMMANDS if "--texts tinystories " in line)
    told = real_lm.options(line.split())
    bench = real_lm.Bench(told, tmp_path)
    for seed, windows in bench.windows.items():
        found = real_lm.read(bench.half(), windows["test"], bench.begins)
        rows = table[(table["step"] == 0) & (table["seed"] == seed)]
        assert (rows["nats"] - found["nats"]).abs().max() < 2e-4
        assert (rows["words"] - found["words"]).abs().max() < 0.3
