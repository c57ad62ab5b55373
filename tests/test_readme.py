"""What the README shows, run as it stands; only how long it trains is cut."""

import re
from pathlib import Path

import nbformat

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


def test_the_lessons_that_take_data_and_models_by_name_are_those_it_says():
    reads = {}
    for path in sorted((README_PLACE.parent / "notebooks").glob("[0-9]*.ipynb")):
        code = "\n".join(cell.source for cell in nbformat.read(path, as_version=4).cells)
        for name in re.findall(r"\bKDLAB_\w+", code):
            reads.setdefault(name, set()).add(path.name[:2])
    first, last = re.search(r"KDLAB_TASK=mnist .*? runs lessons (\d\d) to (\d\d)", README).groups()
    assert reads["KDLAB_TASK"] == {f"{n:02}" for n in range(int(first), int(last) + 1)}
    part = re.search(r"KDLAB_LM=owner/name` the language part of (\d\d)", README)[1]
    assert reads["KDLAB_LM"] & reads["KDLAB_TASK"] == {part}
    first, last = re.search(
        r"\*\*Lessons (\d\d) to (\d\d)\*\* take `KDLAB_ENCODER`", README
    ).groups()
    others = set().union(*(where for name, where in reads.items() if name != "KDLAB_TASK"))
    assert {min(others - {part}), max(others)} == {first, last}
