"""benchmarks/sizes.py, recipes.py, own_base.py, budget.py: small runs, and what their numbers must
be."""

import sys
from pathlib import Path

import pandas as pd
import pytest
import torch

import kdlab as kd
from kdlab.lessons.sizes import narrower

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))
import budget
import own_base
import recipes
import sizes


def test_sizes_are_those_they_say_and_all_learn(tmp_path):
    out = tmp_path / "sizes.csv"
    line = "--steps 5 20 --seeds 2 --widths 16 32 --rates 1e-2 --rows 100"
    sizes.main([*line.split(), "--out", str(out)])
    table = pd.read_csv(out)
    its = table[table["arm"] == "its teacher"]
    assert its["parameters"].tolist() == [kd.language_model("docs_lm")[0].num_parameters()]
    students = table[table["arm"] != "its teacher"].set_index(["arm", "width", "steps", "seed"])
    assert students.index.is_unique and len(students) == 2 * 2 * 2 * 2
    nats = students["nats"].groupby(["arm", "width", "steps"]).mean()
    for arm in sizes.ARMS:
        for width in (16, 32):
            assert its["nats"].item() < nats[arm, width, 20] < nats[arm, width, 5]
    config = kd.language_model("docs_lm")[0].config
    again, other = (narrower(config, 96, seed) for seed in (0, 1))
    assert again.num_parameters() == its["parameters"].item()  # the teacher's own shape
    assert not torch.equal(again.lm_head.weight, other.lm_head.weight)


def test_recipes_differ_where_they_should(tmp_path):
    out = tmp_path / "recipes.csv"
    recipes.main(["--steps", "3", "--fields", "1", "--rates", "3e-3", "--out", str(out)])
    table = pd.read_csv(out).set_index("recipe")
    whole, again = table.loc["all weights, float32"], table.loc["checkpointing"]
    assert again["nats"] == pytest.approx(whole["nats"], abs=1e-5)
    assert table.loc["LoRA, checkpointing", "nats"] == pytest.approx(table.loc["LoRA", "nats"])
    apart = abs(table.loc["all three", "nats"] - table.loc["LoRA", "nats"])
    assert 0 < apart < 0.01 and table.loc["all three", "trained"] == table.loc["LoRA", "trained"]
    assert whole["trained"] == 100 and table.loc["LoRA", "trained"] < 10
    assert table.loc["LoRA", "moved"] < whole["moved"] <= 100
    assert abs(table.loc["LoRA", "nats"] - whole["nats"]) > 1e-3


def test_a_recipe_measured_again_takes_the_place_of_its_own_rows(tmp_path):
    out, line = tmp_path / "recipes.csv", "--fields 1 --rates 3e-3 --recipes LoRA".split()
    recipes.main([*line, "checkpointing", "--steps", "1", "--out", str(out)])
    recipes.main([*line, "--steps", "2", "--out", str(out)])
    table = pd.read_csv(out)
    assert table.set_index("recipe")["steps"].to_dict() == {"checkpointing": 1, "LoRA": 2}


def test_a_student_held_by_its_own_base_forgets_less_and_holds_no_second_model(tmp_path):
    out = tmp_path / "own_base.csv"
    own_base.main("--steps 0 8 --fields 1 --out".split() + [str(out)])
    table = pd.read_csv(out)
    assert table["weights"].nunique() == 1 and table["Adam's means"].nunique() == 1
    start, late = (table[table["steps"] == n].set_index("arm") for n in (0, 8))
    assert start["nats"].nunique() == start["before"].nunique() == 1
    base, tokenizer = kd.language_model("docs_base")
    ids = own_base.held_out(tokenizer)
    with torch.no_grad():
        logits = base(ids).logits[:, :-1].flatten(0, 1)
    own = torch.nn.functional.cross_entropy(logits, ids[:, 1:].flatten()).item()
    assert start["before"].tolist() == pytest.approx([own] * 2, rel=1e-4)
    forgot = late["before"] - start["before"]
    assert 0 < forgot["held by its own base"] < 0.8 * forgot["labels alone"]
    assert (late["nats"] < start["nats"] - 0.05).all()


def test_a_budget_is_compared_with_what_a_run_takes(tmp_path):
    out = tmp_path / "budget.csv"
    budget.main(["--rounds", "1", "--pairs", "small", "--out", str(out)])
    table = pd.read_csv(out).set_index("way")
    assert list(table.index) == list(kd.budget.WAYS) and (table["measured_s"] > 0).all()
    ratio = table["measured_s"] / table["foreseen_s"]
    assert table["measured/foreseen"].tolist() == pytest.approx(ratio.tolist(), abs=0.02)
    student, teacher = (budget.llama(*shape) for shape in budget.PAIRS["small"][::-1])
    flops = kd.budget.size_of(student, budget.LENGTH).forward * budget.TEXTS * budget.LENGTH
    seconds, rate = table["foreseen_s"], table["gflop_s"].iloc[0] * 1e9
    assert seconds["labels alone"] == pytest.approx(3 * flops / rate, rel=0.05)
    reading = kd.budget.size_of(teacher, budget.LENGTH).forward * budget.TEXTS * budget.LENGTH
    reading /= table["reading"].iloc[0] * 1e9
    asked = seconds["teacher asked anew"]
    assert asked == pytest.approx(seconds["labels alone"] + reading, rel=0.05)
    on_disk = 3 * seconds["labels alone"] + reading
    assert seconds["teacher on disk"] == pytest.approx(on_disk, rel=0.05)
    steps = 256 * (table["start_ms"].iloc[0] / 1000 + flops / 256 / rate)
    assert seconds["on-policy"] == pytest.approx(asked + steps, rel=0.05)
