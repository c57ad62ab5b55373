"""A student's data: the same everywhere and always, one's own by id, everybody's without one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import kdlab as kd

NOTEBOOKS = Path(__file__).parents[2] / "notebooks" / "homework" / "student"


def test_an_id_is_the_same_in_every_process_however_it_is_typed():
    code = "import kdlab as kd; print(kd.my_split('Zoë 4711', default=3))"
    for hashes in ("0", "1"):  # Python's own hash differs between these
        ran = subprocess.run(
            [sys.executable, "-X", "utf8", "-c", code],
            capture_output=True,
            text=True,
            encoding="utf-8",
            env={**os.environ, "PYTHONHASHSEED": hashes},
            check=True,
        )
        assert int(ran.stdout) == kd.my_split("  ZOE\u0308 4711 ", default=3)


def test_a_class_of_two_hundred_has_hardly_two_alike_and_none_that_overlap_in_part():
    found = [kd.my_split(f"{number}") for number in range(200)]
    assert len(set(found)) > 190
    assert all(seed % 100 == 0 and 100_000 <= seed < 1_000_000 for seed in found)


def test_another_secret_draws_other_data_for_everyone():
    students = [f"{number}" for number in range(50)]
    pairs = [(kd.my_split(s, default=1), kd.my_split(s, default=2)) for s in students]
    assert sum(one != other for one, other in pairs) >= 49


def test_two_students_see_other_images_of_one_size():
    one, other = (kd.load("digits", seed=kd.my_split(student)) for student in ("ada", "bob"))
    assert one.train.x.shape == other.train.x.shape
    assert not torch.equal(one.train.x, other.train.x)


@pytest.mark.parametrize("empty", ["", "  "])
def test_without_an_id_a_line_says_whose_data_it_is(empty, capsys):
    assert kd.my_split(empty, default=7) == 7
    assert capsys.readouterr().out == "No id: the data of everybody, seed 7.\n"


@pytest.mark.parametrize("name", ["hw1", "hw3", "hw4", "hw7"])
def test_a_homework_with_an_experiment_draws_it_from_the_id(name):
    text = (NOTEBOOKS / name / f"{name}.ipynb").read_text(encoding="utf-8")
    assert text.count("kd.my_split(STUDENT, default=") == 1
    assert text.count('STUDENT = \\"\\"') == 1
