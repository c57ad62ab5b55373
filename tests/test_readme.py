"""What the README shows, run as it stands; only how long it trains is cut."""

import re
from pathlib import Path

README_PLACE = Path(__file__).parent.parent / "README.md"
README = README_PLACE.read_text(encoding="utf-8")
SNIPPETS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
SHORTER = {
    '"digits", 8': '"digits", 4',
    "epochs=30": "epochs=2",
    "seeds=2)": "seeds=2, epochs=2)",
}


def test_the_readme_holds_the_snippets_that_are_run():
    assert len(SNIPPETS) == 2


def test_the_snippet_of_images_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    snippet = SNIPPETS[0]
    for long, short in SHORTER.items():
        assert long in snippet
        snippet = snippet.replace(long, short)
    exec(compile(snippet, "README.md", "exec"), {})
    assert "±" in capsys.readouterr().out


def test_the_snippet_of_language_is_the_example_s(tmp_path):
    """Which tests/test_examples.py runs."""
    example = README_PLACE.parent / "examples" / "distil_lm.py"
    assert SNIPPETS[1].strip() in example.read_text(encoding="utf-8")
