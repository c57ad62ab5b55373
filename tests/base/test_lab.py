"""Where we run: what setup chooses, says and changes, and how many threads a model gets."""

import os
import random
import subprocess
import sys

import numpy as np
import pytest
import torch

from kdlab import setup
from kdlab.base import lab


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
