"""What the README shows, run as it stands; only how long it trains is cut."""

import re
from pathlib import Path

import pytest

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
SNIPPETS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
SHORTER = {'"digits", 8': '"digits", 4', "epochs=30": "epochs=2", "seeds=2)": "seeds=2, epochs=2)",
           "max_steps=20": "max_steps=2"}


def test_the_readme_holds_the_snippets_that_are_run():
    assert len(SNIPPETS) == 2


@pytest.mark.parametrize("snippet", SNIPPETS, ids=["images", "language"])
def test_a_snippet_runs(snippet, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for long, short in SHORTER.items():
        snippet = snippet.replace(long, short)
    names = {}
    exec(compile(snippet, "README.md", "exec"), names)
    if "trainer" in names:
        assert names["trainer"].state.global_step == 2 and names["trainer"].state.log_history[-1]["train_loss"] > 0
    else:
        assert "±" in capsys.readouterr().out
