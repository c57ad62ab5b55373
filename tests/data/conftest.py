"""What the tests of data share."""

import sysconfig

import datasets
import huggingface_hub.constants as hub
import pytest

from kdlab.data.docstrings import docstrings


@pytest.fixture
def library(tmp_path, monkeypatch):
    """A standard library of our own: library(path, source) adds a file, library.read() gives its
    docstrings."""
    monkeypatch.setattr(sysconfig, "get_paths", lambda: {"stdlib": str(tmp_path / "lib")})
    monkeypatch.setenv("KDLAB_CACHE", str(tmp_path / "own" / "cache"))

    def write(path, source):
        file = tmp_path / "lib" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(source if isinstance(source, bytes) else source.encode())

    write.read = docstrings.__wrapped__  # past what this process remembers
    return write


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty working directory and empty caches; write(name, split, …) makes a set in
    KDLAB_DATA."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(hub, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("KDLAB_DATA", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)

    def write(name, split, kind="parquet", classes=("bad", "good"), **columns):
        (tmp_path / "data" / name).mkdir(parents=True, exist_ok=True)
        rows = datasets.Dataset.from_dict(columns)
        if classes and "mood" in columns:
            rows = rows.cast_column("mood", datasets.ClassLabel(names=list(classes)))
        file = str(tmp_path / "data" / name / f"{split}.{kind}")
        rows.to_parquet(file) if kind == "parquet" else rows.to_json(file)

    return write
