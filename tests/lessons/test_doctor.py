"""What doctor says of a machine, and what it returns."""

import importlib.metadata
from types import SimpleNamespace

import huggingface_hub.constants
import psutil
import pytest

from kdlab import doctor


def lines(capsys):
    return [line.split(maxsplit=2) for line in capsys.readouterr().out.splitlines()]


@pytest.fixture
def everything(monkeypatch):
    """A machine with every package and enough memory."""
    monkeypatch.setattr(importlib.metadata, "version", lambda package: "9.9")
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=8 * 2**30))


def test_doctor_is_content_with_a_whole_machine(capsys, everything, tmp_path, monkeypatch):
    (tmp_path / "mnist").mkdir()
    monkeypatch.setenv("KDLAB_DATA", str(tmp_path))
    assert doctor() is True
    said = lines(capsys)
    assert said[-1] == ["The", "course", "can run."]
    assert ["ok", "torch", "9.9"] in said and ["ok", "mnist", str(tmp_path / "mnist")] in said
    assert ["ok", "memory", "8.0 GiB free"] in said


@pytest.mark.parametrize(
    "package, healthy, advice",
    [
        ("matplotlib", False, "pip install 'kdlab[course]'"),
        ("torch", False, "pip install kdlab"),
        ("fastapi", True, "pip install 'kdlab[serve]'  (for lesson 11)"),
        ("nbval", True, "pip install 'kdlab[test]'  (for tests alone)"),
    ],
)
def test_doctor_names_a_missing_package_and_how_to_get_it(
    capsys, everything, monkeypatch, package, healthy, advice
):
    def version(name):
        if name == package:
            raise importlib.metadata.PackageNotFoundError(name)
        return "9.9"

    monkeypatch.setattr(importlib.metadata, "version", version)
    assert doctor() is healthy
    found = [line for line in lines(capsys) if line[:2] == ["missing", package]]
    assert found == [["missing", package, advice]]


def test_doctor_names_a_package_that_is_too_old(capsys, everything, monkeypatch):
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: ["scipy>=10; extra == 'x'"])
    assert doctor() is False
    assert [
        "missing",
        "scipy",
        "9.9 is too old, >=10 is needed: pip install 'kdlab[course]'",
    ] in lines(capsys)


def test_doctor_minds_memory_and_says_how_to_reach_data(capsys, everything, monkeypatch, tmp_path):
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=2**29))
    monkeypatch.setattr("kdlab.base.places.hub_reachable", lambda: False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.delenv("KDLAB_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    assert doctor() is False
    said = {line[1]: line for line in lines(capsys)[:-1]}
    assert said["memory"][0] == "missing" and "0.5 GiB free" in said["memory"][2]
    assert (
        said["mnist"][0] == "missing"
        and "set KDLAB_DATA to a directory that holds mnist/" in said["mnist"][2]
    )
    assert said["digits"][0] == "ok" and said["hub"][0] == "missing"
