"""What a `DistillationTrainer` says of an evaluation set and of a step, by hand and by two."""

import json
import math

import pytest
import torch
import torch.nn.functional as F
from pair import of_two
from tiny_models import V, build
from transformers import DataCollatorWithFlattening, TrainingArguments

import kdlab as kd

QUIET = dict(report_to="none", disable_tqdm=True, use_cpu=True, save_strategy="no")


def ragged(count=17, seed=0):
    """Texts of 2 to 9 tokens, the first of some not learnt."""
    g = torch.Generator().manual_seed(seed)
    rows = []
    for _ in range(count):
        length = int(torch.randint(2, 10, (1,), generator=g))
        ids = torch.randint(5, V, (length,), generator=g).tolist()
        prompt = int(torch.randint(0, 3, (1,), generator=g)) if length > 4 else 0
        rows.append({"input_ids": ids, "labels": [-100] * prompt + ids[prompt:]})
    return rows


def trainer(folder, objective=None, rows=None, batch=3, **options):
    """A small Llama beside another as its teacher."""
    own = {
        k: options.pop(k)
        for k in ("logging_steps", "max_steps", "prediction_loss_only")
        if k in options
    }
    args = TrainingArguments(
        folder, per_device_train_batch_size=batch, per_device_eval_batch_size=batch, **QUIET, **own
    )
    return kd.DistillationTrainer(
        build("Llama", seed=1),
        args,
        teacher=build("Llama", seed=2),
        objective=objective,
        train_dataset=ragged() if rows is None else rows,
        eval_dataset=ragged() if rows is None else rows,
        **options,
    )


def by_hand(rows, alpha):
    """Sums over tokens with torch's own losses, one text at a time."""
    student, teacher = build("Llama", seed=1), build("Llama", seed=2)
    soft = hard = tokens = 0.0
    for row in rows:
        ids, labels = torch.tensor([row["input_ids"]]), torch.tensor(row["labels"])[1:]
        with torch.no_grad():
            log_q, log_p = (m(ids).logits[0, :-1].log_softmax(-1) for m in (student, teacher))
        counts = labels != -100
        soft += (
            F.kl_div(log_q, log_p, log_target=True, reduction="none").sum(-1)[counts].sum().item()
        )
        hard += F.nll_loss(log_q[counts], labels[counts], reduction="sum").item()
        tokens += int(counts.sum())
    soft, hard = soft / tokens, hard / tokens
    return {"loss": alpha * soft + (1 - alpha) * hard, "soft": soft, "hard": hard}


def layers():
    """A loss on hidden layers; between equal widths its projectors begin as the identity."""
    return kd.LayerMap([(0, 1), (2, 3)], attention=0)


def evaluated(folder):
    """Every number of an evaluation, for plain and fused losses and one with hidden layers."""
    found = {}
    for name, options in {
        "plain": {},
        "fused": {"fused": True, "prediction_loss_only": True},
        "hidden": {"hidden": layers()},
        "fused, hidden": {"fused": True, "prediction_loss_only": True, "hidden": layers()},
    }.items():
        one = trainer(folder, kd.TokenLoss(alpha=0.5), **options)
        found[name] = one.evaluate()
    return {
        name: {k: v for k, v in told.items() if "_per_second" not in k and "time" not in k}
        for name, told in found.items()
    }


@pytest.mark.parametrize("batch", [1, 3, 17])
@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("alpha", [0.5, 1.0])
def test_the_evaluation_is_a_mean_over_the_tokens_of_the_whole_set(batch, fused, alpha, tmp_path):
    one = trainer(
        tmp_path, kd.TokenLoss(alpha=alpha), batch=batch, fused=fused, prediction_loss_only=fused
    )
    told, expected = one.evaluate(), by_hand(ragged(), alpha)
    for name, value in expected.items():
        assert told[f"eval_{name}"] == pytest.approx(value, rel=1e-4), name
    assert told["eval_perplexity"] == pytest.approx(math.exp(expected["hard"]), rel=1e-4)
    assert math.isnan(told["eval_hidden"])


@pytest.mark.parametrize("fused", [False, True])
def test_an_evaluation_in_which_nothing_counts_has_no_numbers(fused, tmp_path):
    rows = [row | {"labels": [-100] * len(row["labels"])} for row in ragged(5)]
    how = dict(fused=fused, prediction_loss_only=fused, hidden=layers())
    told = trainer(tmp_path, kd.TokenLoss(alpha=0.5), rows=rows, **how).evaluate()
    for name in ("loss", "soft", "hard", "hidden", "perplexity"):
        assert math.isnan(told[f"eval_{name}"]), name


class Matching(kd.Objective):
    """An own objective that tells no terms."""

    def rows(self, student_logits, teacher_logits, labels):
        return {"loss": (student_logits - teacher_logits).square().mean(-1)}


def test_an_own_objective_has_its_perplexity_too(tmp_path):
    told = trainer(tmp_path, Matching()).evaluate()
    assert told["eval_hard"] == pytest.approx(by_hand(ragged(), 0.5)["hard"], rel=1e-4)
    assert told["eval_perplexity"] == pytest.approx(math.exp(told["eval_hard"]))
    assert math.isnan(told["eval_soft"]) and told["eval_loss"] > 0


def test_packed_texts_are_evaluated_as_single_ones(tmp_path):
    collate = DataCollatorWithFlattening(return_flash_attn_kwargs=True)
    one = trainer(tmp_path, kd.TokenLoss(alpha=0.5), data_collator=collate)
    told = one.evaluate()
    for name, value in by_hand(ragged(), 0.5).items():
        assert told[f"eval_{name}"] == pytest.approx(value, rel=1e-4), name


def test_two_processes_evaluate_what_one_does(tmp_path):
    """17 ragged texts: the last batches are filled up with texts that were counted before."""
    two, one = json.loads((of_two() / "told.json").read_text()), evaluated(tmp_path)
    for name, told in one.items():
        for key, value in told.items():
            same = pytest.approx(value, rel=1e-5, nan_ok=True)
            assert two[name][key] == same, (name, key)
        assert math.isnan(told["eval_hidden"]) is ("hidden" not in name)
    alone, beside = one["plain"], one["hidden"]
    assert beside["eval_loss"] == pytest.approx(alone["eval_loss"] + beside["eval_hidden"])


@pytest.mark.parametrize("fused", [False, True])
def test_the_log_is_averaged_over_its_steps_and_says_what_is_not_computed(fused, tmp_path):
    """One line for two steps is the mean of the lines of each."""
    logs = {}
    for every in (1, 2):
        one = trainer(
            tmp_path, kd.TokenLoss(alpha=0.5), logging_steps=every, max_steps=2, fused=fused
        )
        one.train()
        logs[every] = [line for line in one.state.log_history if "loss" in line]
    assert len(logs[1]) == 2 and len(logs[2]) == 1
    for name in ("loss", "soft", "hard"):
        mean = sum(line[name] for line in logs[1]) / 2
        assert logs[2][0][name] == pytest.approx(mean, abs=2e-4), name
        assert mean > 0
    assert all(math.isnan(line["hidden"]) for line in logs[1] + logs[2])
    one = trainer(tmp_path, kd.TokenLoss(alpha=1.0), logging_steps=1, max_steps=1, fused=fused)
    one.train()
    line = one.state.log_history[0]
    assert line["soft"] > 0 and math.isnan(line["hard"])  # no weight, so not computed
