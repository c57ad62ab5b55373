"""benchmarks/cache.py: a small run of it, and what its numbers must be."""

import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))
import cache as bench

LINE = "--model docs_base --texts web --length 32 --batch 8 --tokens 300 3000 --top 3 9"


def test_bytes_a_token_are_those_of_k_numbers_and_do_not_grow(tmp_path):
    out = tmp_path / "cache.csv"
    bench.main(f"{LINE} --out {out}".split())
    whole = pd.read_csv(out)
    assert set(whole["kept"]) == {"top", "drawn"}
    by_kind = whole.pivot(index=["tokens", "k"], columns="kept", values="bytes")
    assert (by_kind["drawn"] <= by_kind["top"]).all()  # a token drawn twice is kept once
    table = whole[whole["kept"] == "top"].set_index(["tokens", "k"])
    few, many = table.index.get_level_values("tokens").unique()
    assert 300 <= few < 331 and 3000 <= many < 3031  # whole texts
    for k in (3, 9):
        bare = 4 + (2 + 2) * k + 2  # its id, k ids with their log-probabilities, the rest
        assert bare < table.loc[(many, k), "bytes"] < bare + 20
        assert table.loc[(many, k), "bytes"] <= table.loc[(few, k), "bytes"]
    assert (table[["build_s", "read_s", "asked_s", "read/asked"]] >= 0).all(axis=None)
    bench.main(f"{LINE} --texts mail --out {out}".split())
    assert set(pd.read_csv(out)["texts"]) == {"web", "mail"} and len(pd.read_csv(out)) == 16


def test_growth_is_what_was_held_at_most_also_where_memory_is_used_again():
    for _ in range(3):  # after the first, the C library keeps what is freed, and hands it out again
        with bench.Growth() as grown:
            held = torch.ones(7_000_000)  # 28 MB
            time.sleep(0.2)
            del held
        assert 25e6 < grown.most < 60e6


def test_too_many_tokens_are_told(tmp_path):
    with pytest.raises(SystemExit, match="web has [0-9,]+ tokens: fewer --tokens"):
        bench.main(f"--model docs_base --texts web --tokens 99999999 --out {tmp_path}/x".split())


def test_the_committed_cache_grows_in_line_with_its_tokens_and_memory_does_not():
    table = pd.read_csv(bench.RESULTS)
    for _, rows in table.groupby(["k", "kept", "model", "texts", "hardware"]):
        rows = rows.sort_values("tokens")
        assert rows["tokens"].iloc[-1] >= 29 * rows["tokens"].iloc[0]
        bytes_of = rows["tokens"] * rows["bytes"]
        growth = bytes_of.iloc[-1] / bytes_of.iloc[0]
        assert growth == pytest.approx(rows["tokens"].iloc[-1] / rows["tokens"].iloc[0], rel=0.02)
        assert rows["peak_mb"].iloc[-1] < 2 * rows["peak_mb"].iloc[0] + 2  # a batch, not all
