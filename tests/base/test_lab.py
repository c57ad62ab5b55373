"""Where we run: setup, the order in which data is looked for, and what doctor says and returns."""

import importlib.metadata
import os
import random
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub.constants
import numpy as np
import psutil
import pytest
import torch

from kdlab import doctor, setup
from kdlab.base import lab, places


@pytest.fixture(autouse=True)
def untouched(monkeypatch):
    """setup changes global state: put it back."""
    monkeypatch.setattr(lab, "chosen", None)
    monkeypatch.delenv("KDLAB_SCALE", raising=False)
    yield
    torch.use_deterministic_algorithms(False)


def draw():
    return random.random(), np.random.rand(), torch.rand(3).tolist()


def test_setup_makes_every_random_number_repeatable(capsys):
    setup(seed=5)
    first = draw()
    setup(seed=5)
    assert draw() == first
    setup(seed=6)
    assert draw() != first
    assert torch.are_deterministic_algorithms_enabled()
    assert len(capsys.readouterr().out.strip().splitlines()) == 3  # one line a call


def test_setup_says_what_it_chose(capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert lab.device() == torch.device("cpu")
    chosen = setup(seed=3)
    assert (chosen.device.type, chosen.dtype, chosen.scale, chosen.seed) == (
        "cpu",
        torch.float32,
        "quick",
        3,
    )
    threads = torch.get_num_threads()
    assert (
        capsys.readouterr().out
        == f"kdlab on cpu · {threads} threads · float32 weights · scale quick · seed 3\n"
    )


def test_a_gpu_comes_first_and_runs_in_full(capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda *_: "a GPU")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    chosen = setup()
    assert chosen.device.type == lab.device().type == "cuda" and chosen.scale == "full"
    assert "on a GPU" in capsys.readouterr().out
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert setup().device.type == "mps"


@pytest.mark.parametrize("scale", ["quick", "full"])
def test_the_environment_overrides_the_scale(monkeypatch, scale):
    monkeypatch.setenv("KDLAB_SCALE", scale)
    assert setup().scale == scale


@pytest.mark.parametrize(
    "seed", [-1, 1.5, "0", None, True, 2**32]
)  # NumPy takes no more than 32 bits
def test_a_bad_seed_is_named(seed):
    with pytest.raises(
        ValueError, match=rf"^setup: seed must be a whole number in \[0, 4294967295\], got {seed!r}"
    ):
        setup(seed)


def test_a_bad_scale_is_named(monkeypatch):
    monkeypatch.setenv("KDLAB_SCALE", "huge")
    with pytest.raises(
        ValueError, match="^setup: KDLAB_SCALE must be 'quick' or 'full', got 'huge'"
    ):
        setup()


@pytest.fixture
def teacher(monkeypatch):
    """KDLAB_LM is set to what the function is given, setup called → KDLAB_STUDENT."""
    monkeypatch.setattr(lab, "named", None)
    for name in ("KDLAB_LM", "KDLAB_STUDENT"):
        monkeypatch.setenv(name, "")  # so that they are put back

    def found(name):
        os.environ["KDLAB_LM"] = name
        setup()
        return os.environ.get("KDLAB_STUDENT")

    return found


def test_a_teacher_by_name_without_a_student_teaches_its_own_half(teacher):
    assert teacher("owner/name") == "half of owner/name"
    assert teacher("another") == "half of another"  # changed in a running notebook
    for own in ("docs_lm", ""):
        assert teacher(own) is None  # the course's own student reads as this teacher does


def test_a_student_by_name_stays(teacher, monkeypatch):
    monkeypatch.setenv("KDLAB_STUDENT", "owner/small")
    assert teacher("owner/name") == teacher("") == "owner/small"


def test_omp_waits_passively_before_torch_is_loaded():
    environment = {k: v for k, v in os.environ.items() if k != "OMP_WAIT_POLICY"}
    source = (
        "import sys, importlib.util as u; import os\n"
        "class Spy:\n"
        "    def find_spec(self, name, *rest):\n"
        "        if name == 'torch': print(os.environ.get('OMP_WAIT_POLICY')); sys.exit()\n"
        "sys.meta_path.insert(0, Spy())\n"
        "import kdlab\n"
        "kdlab.setup()"  # a name is loaded when it is first asked for
    )
    ran = subprocess.run(
        [sys.executable, "-c", source], env=environment, capture_output=True, text=True, check=True
    )
    assert ran.stdout == "PASSIVE\n"


@pytest.mark.parametrize(
    ("policy", "warned"), [({}, True), ({"OMP_WAIT_POLICY": "PASSIVE"}, False)]
)
def test_torch_imported_first_is_warned_about(policy, warned):
    environment = {k: v for k, v in os.environ.items() if k != "OMP_WAIT_POLICY"} | policy
    # any module of that name: torch's own takes two seconds to load
    code = "import sys, types; sys.modules['torch'] = types.ModuleType('torch'); import kdlab"
    ran = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert ("torch was imported before kdlab" in ran.stderr) is warned


def test_places_are_tried_in_order(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("KDLAB_DATA", raising=False)
    where, tried = places.locate("some/set")
    assert where is None
    assert tried == ["directory some/set", "KDLAB_DATA (not set)", "hub cache, id some/set"]
    (tmp_path / "cache" / "datasets--some--set" / "snapshots").mkdir(parents=True)
    assert places.locate("some/set")[0] == "some/set"
    assert places.locate("some/set", "KDLAB_MODELS")[0] is None  # models lie elsewhere in the cache
    monkeypatch.setenv("KDLAB_DATA", str(tmp_path / "data"))
    (tmp_path / "data" / "set").mkdir(parents=True)
    where, tried = places.locate("some/set")
    assert where == tmp_path / "data" / "set" and tried[1] == f"KDLAB_DATA={tmp_path / 'data'}"
    (tmp_path / "data" / "some" / "set").mkdir(parents=True)
    assert places.locate("some/set")[0] == tmp_path / "data" / "some" / "set"
    (tmp_path / "some" / "set").mkdir(parents=True)
    assert places.locate("some/set") == (Path("some/set"), ["directory some/set"])


def test_a_short_name_stands_for_its_hub_id(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("KDLAB_DATA", raising=False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    (tmp_path / "datasets--ylecun--mnist" / "snapshots").mkdir(parents=True)
    assert places.locate("mnist")[0] == "ylecun/mnist"


def test_the_hub_is_reachable_where_a_connection_opens(monkeypatch):
    def refuse(*_):
        raise OSError("no network")

    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setattr(socket, "create_connection", lambda *_: SimpleNamespace(close=lambda: None))
    assert places.hub_reachable()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert not places.hub_reachable()
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setattr(socket, "create_connection", refuse)
    assert not places.hub_reachable()


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


def test_a_small_model_gets_one_thread_and_gives_it_back():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with pytest.raises(KeyError), lab.threads_for(torch.nn.Linear(10, 10)):
            assert torch.get_num_threads() == 1
            raise KeyError
        assert torch.get_num_threads() == 2
        with lab.threads_for(torch.nn.Linear(2000, 1001)):
            assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
