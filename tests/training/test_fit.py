"""One student, trained in silence: against AdamW, warm-up, cosine and clipping written out; nothing
left behind."""

import copy
import math
import os
import subprocess
import sys
import tempfile
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from datasets import Dataset, DatasetDict
from trainers import Pairs, bert, llama, weights
from transformers.utils import logging

from kdlab import Collator, HardLabels, OnPolicy, TokenLoss, fit

LINE = {"step": 7, "epoch": 1.0, "loss": 0.5, "soft": 0.4, "hard": 0.1, "hidden": 0.0}
IDS = torch.randint(1, 32, (24, 6), generator=torch.Generator().manual_seed(3)).tolist()
ROWS = [{"input_ids": row, "labels": row} for row in IDS]
SENTENCES = [{"input_ids": row, "labels": row[0] % 3} for row in IDS]


def trained(student, *args, **options):
    """The student itself, once `fit` is through."""
    fit(student, *args, **options)
    return student


def same(one, other):
    one, other = weights(one), weights(other)
    return all(torch.equal(one[k], other[k]) for k in one)


def kept(batches):
    """A collator that stacks rows as usual and notes them."""

    def collate(rows):
        batches.append([r["input_ids"] for r in rows])
        return {k: torch.tensor([r[k] for r in rows]) for k in rows[0]}

    return collate


def written_out(model, batches, lr, loss):
    """AdamW without decay (Loshchilov and Hutter 2019, algorithm 2) over these batches; → the
    gradients' norms."""
    params, total, warm = list(model.parameters()), len(batches), math.ceil(0.1 * len(batches))
    m, v, norms = [0.0] * len(params), [0.0] * len(params), []
    for t, ids in enumerate(batches):
        grads = torch.autograd.grad(loss(model, torch.tensor(ids)), params)
        norms.append(math.sqrt(sum(g.square().sum().item() for g in grads)))
        rate = lr * (
            t / warm if t < warm else (1 + math.cos(math.pi * (t - warm) / (total - warm))) / 2
        )
        for i, g in enumerate(grads):
            g = g * min(1.0, 1 / (norms[-1] + 1e-6))
            m[i], v[i] = 0.9 * m[i] + 0.1 * g, 0.999 * v[i] + 0.001 * g * g
            step = m[i] / (1 - 0.9 ** (t + 1)) / ((v[i] / (1 - 0.999 ** (t + 1))).sqrt() + 1e-8)
            params[i].data -= rate * step
    return norms


TEACHER = llama(16, seed=2)


def label_loss(model, ids):
    return F.cross_entropy(model(ids).logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())


def teacher_loss(model, ids):
    p, q = (m(ids).logits[:, :-1].flatten(0, 1).log_softmax(-1) for m in (TEACHER, model))
    return F.kl_div(q, p.detach(), reduction="batchmean", log_target=True)


@pytest.mark.parametrize(
    "loss, how, lr",
    [
        (label_loss, {"objective": HardLabels(), "epochs": 4}, 2e-3),
        (teacher_loss, {"teacher": TEACHER, "steps": 5}, 0.01),
        (
            teacher_loss,
            {"teacher": TEACHER, "objective": TokenLoss(), "steps": 5, "epochs": 9, "batch": 6},
            None,
        ),
    ],
)
def test_weights_are_those_of_the_steps_written_out(loss, how, lr):
    student, batches = llama(8, seed=1), []
    reference = copy.deepcopy(student)
    history = fit(student, ROWS, collator=kept(batches), **how, **({"lr": lr} if lr else {}))
    steps, size = how.get("steps", 12), how.get("batch", 8)
    batches = batches[:steps]  # one more may have been fetched ahead
    assert [len(b) for b in batches] == [size] * steps
    assert history["step"].tolist() == list(range(1, steps + 1)) and history["loss"].min() > 0
    assert sorted(sum(batches[: 24 // size], [])) == sorted(IDS)  # every row once an epoch
    norms = written_out(reference, batches, lr or 2e-3, loss)
    assert loss is teacher_loss or max(norms) > 1.1  # clipping had something to do
    for name, value in weights(reference).items():
        assert (weights(student)[name] - value).abs().max() < 1e-9, name


@pytest.mark.parametrize(
    "make, data",
    [(lambda: llama(8, seed=1), ROWS), (lambda: bert(8, 1, dropout=0.3), SENTENCES[:8])],
    ids=["order", "dropout"],
)
def test_a_seed_fixes_the_order_and_dropout_and_nothing_else_plays_a_part(make, data):
    start = make()
    models = []
    for i, seed in enumerate((0, 0, 1)):
        torch.manual_seed(i)  # the global generator plays no part
        models.append(trained(make(), data, objective=HardLabels(), epochs=2, seed=seed))
    first, again, other = models
    assert same(first, again) and not same(first, other) and not same(first, start)
    assert not any(module.training for model in models for module in model.modules())


def test_the_trainer_gets_what_it_is_to_be_given(monkeypatch):
    made = []

    class Recorder:
        counted = 1

        def __init__(self, model, args, **options):
            made.append((model, args, options, logging.get_verbosity()))

        def remove_callback(self, kind):
            made.append(kind.__name__)

        def train(self):
            self.state = SimpleNamespace(log_history=[LINE])
            student.train()

    monkeypatch.setattr(sys.modules["kdlab.training.trainer"], "DistillationTrainer", Recorder)
    student, given = (
        llama(8),
        {
            "teacher": TEACHER,
            "objective": TokenLoss(),
            "hidden": Pairs(),
            "on_policy": OnPolicy(0.5, 2),
            "collator": kept([]),
        },
    )
    history = fit(student, ROWS, **given, steps=7, epochs=3, batch=5, lr=0.1, seed=4)
    assert history.to_dict("records") == [LINE] and not student.training
    (model, args, options, verbosity), silenced = made
    given |= {"train_dataset": ROWS, "data_collator": given.pop("collator")}
    assert model is student and silenced == "PrinterCallback" and options.keys() == given.keys()
    assert all(options[k] is given[k] for k in given)
    assert (args.max_steps, args.num_train_epochs, args.per_device_train_batch_size) == (7, 3, 5)
    assert (args.learning_rate, args.seed, args.use_cpu) == (0.1, 4, True)
    assert verbosity == logging.ERROR and args.report_to == []
    assert (args.save_strategy, args.logging_steps) == ("no", 1)
    assert args.gradient_accumulation_steps == 1


@pytest.mark.parametrize("fails", [False, True])
def test_how_much_transformers_says_is_as_before_and_no_file_is_left(fails, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    before, out = logging.get_verbosity(), sys.stdout
    logging.set_verbosity_info()
    try:
        if fails:
            with pytest.raises(ValueError, match="labels"):
                fit(llama(8), [{"input_ids": [1, 2]}] * 8, objective=HardLabels(), steps=1)
        else:
            fit(llama(8), ROWS, objective=HardLabels(), steps=2)
        assert logging.get_verbosity() == logging.INFO and sys.stdout is out
    finally:
        logging.set_verbosity(before)
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_printed(tmp_path):
    code = """
from transformers import LlamaConfig, LlamaForCausalLM
from kdlab import HardLabels, fit
config = LlamaConfig(vocab_size=16, hidden_size=8, num_attention_heads=1, num_hidden_layers=1)
model = LlamaForCausalLM(config)
fit(model, [{"input_ids": [1, 5, 2], "labels": [1, 5, 2]}] * 8, objective=HardLabels(), epochs=2)
"""
    environment = {k: v for k, v in os.environ.items() if k != "TQDM_DISABLE"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "") and list(
        tmp_path.iterdir()
    ) == []


def test_a_small_model_trains_on_one_thread_and_the_others_are_given_back():
    seen, before = [], torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        batches = kept([])
        fit(
            llama(8, seed=1),
            ROWS,
            objective=HardLabels(),
            steps=1,
            batch=8,
            collator=lambda rows: seen.append(torch.get_num_threads()) or batches(rows),
        )
        assert set(seen) == {1} and torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_the_history_has_a_row_a_mark_each_a_mean_since_the_mark_before():
    """120 steps are told at every second one."""
    marks = fit(llama(8, seed=1), ROWS, teacher=TEACHER, steps=120, lr=1e-2)
    assert marks["step"].tolist() == list(range(2, 121, 2))
    assert list(marks) == ["step", "epoch", "loss", "soft", "hard", "hidden"]
    assert marks["loss"].iloc[-1] < 0.7 * marks["loss"].iloc[0]
    assert (marks["loss"] - marks["soft"]).abs().max() < 2e-4  # alpha is 1
    assert marks["hard"].isna().all() and marks["hidden"].isna().all()
    whole = fit(llama(8, seed=1), ROWS, teacher=TEACHER, steps=3, lr=1e-2)
    assert len(whole) == 3


# --- what is given ---


class Numbered(torch.utils.data.Dataset):
    def __init__(self, rows):
        self.rows = rows

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, i):
        return self.rows[i]


class Stream(torch.utils.data.IterableDataset):
    def __init__(self, rows):
        self.rows = rows

    def __iter__(self):
        return iter(self.rows)


MAPS = {"list": list, "tuple": tuple, "numbered": Numbered, "datasets": Dataset.from_list}


class Once(Stream):
    """One iterator, read once."""

    def __init__(self, rows):
        self.rows = iter(rows)


STREAMS = {
    "once": Once,
    "stream": Stream,
    "datasets": lambda rows: Dataset.from_list(rows).to_iterable_dataset(),
}


def learnt(data, **how):
    return trained(llama(8, seed=1), data, objective=HardLabels(), **how)


@pytest.mark.parametrize("kind", MAPS)
def test_every_kind_of_numbered_data_trains_alike(kind):
    assert same(learnt(MAPS[kind](ROWS)), learnt(ROWS))


@pytest.mark.parametrize("kind", STREAMS)
def test_data_without_a_length_is_read_in_its_order_for_so_many_steps(kind):
    reference, student = llama(8, seed=1), learnt(STREAMS[kind](ROWS), steps=3)
    written_out(reference, [IDS[:8], IDS[8:16], IDS[16:]], 2e-3, label_loss)
    for name, value in weights(reference).items():
        assert (weights(student)[name] - value).abs().max() < 1e-9, name


@pytest.mark.parametrize("epochs, steps", [(0.5, 2), (1 / 3, 1), (1.5, 5)])
def test_a_share_of_an_epoch_is_that_share_of_its_steps(epochs, steps):
    assert same(learnt(ROWS, epochs=epochs), learnt(ROWS, steps=steps))


@pytest.mark.parametrize("how", [{"steps": 1}, {"batch": 24}, {"batch": 99}, {"epochs": 0.2}])
def test_a_single_step_is_taken_at_the_full_rate(how):
    batches, student, reference = [], llama(8, seed=1), llama(8, seed=1)
    fit(student, ROWS, objective=HardLabels(), collator=kept(batches), **how)
    params = list(reference.parameters())
    grads = torch.autograd.grad(label_loss(reference, torch.tensor(batches[0])), params)
    norm = math.sqrt(sum(g.square().sum().item() for g in grads))
    for p, own, g in zip(params, student.parameters(), grads, strict=True):
        g = g * min(1.0, 1 / (norm + 1e-6))
        assert (
            own - (p - 2e-3 * g / (g.abs() + 1e-8))
        ).abs().max() < 1e-9  # Adam's first step: the sign


def tuples(rows):
    return [tuple(row.values()) for row in rows]


WRONG = {
    "fit: data must hold at least one row, got none": [
        *[{"data": make([])} for make in (list, tuple, Numbered)],
        {"data": Stream([]), "steps": 2},
    ],
    "fit: data must hold a row with a label that counts": [
        {"data": [{"input_ids": row, "labels": [-100] * 6} for row in IDS]},
        {"data": [{"input_ids": row[:1], "labels": row[:1]} for row in IDS]},
        {"data": Stream([ROWS[0] | {"labels": [-100] * 6}]), "steps": 2},
    ],
    "fit: data must be a list of dictionaries.*, got ": [
        {"data": DatasetDict({"train": Dataset.from_list(ROWS)})},
        {"data": {"input_ids": IDS}},
        {"data": pd.DataFrame(ROWS)},
        {"data": iter(ROWS)},
        {"data": torch.tensor(IDS)},
        {"data": "docstrings"},
    ],
    "fit: data must hold dictionaries as rows, got (tuple|list) as row 0": [
        {"data": tuples(ROWS)},
        {"data": IDS},
    ],
    r"fit: data must hold rows with something that .* got the columns \['\w+'\] in row 0": [
        {"data": [{"text": "a text"}]},
        {"data": Dataset.from_list([{"text": "a text"}])},
        {"data": [{"labels": [1]}]},
    ],
    "fit: steps must be a whole number of at least 1 for data without a length, got -1": [
        {"data": Stream(ROWS)}
    ],
    "fit: steps must be a whole number of at least 1, or -1 to go by epochs, got 0": [{"steps": 0}],
    "fit: steps must be a whole number": [{"steps": -2}, {"steps": 2.0}, {"steps": True}],
    "fit: epochs must be a finite number above 0": [
        {"epochs": 0},
        {"epochs": math.inf},
        {"epochs": "3"},
    ],
    "fit: batch must be a whole number of at least 1": [{"batch": 0}, {"batch": 8.0}],
    "fit: lr must be a finite number above 0": [{"lr": 0}, {"lr": "2e-3"}, {"lr": math.nan}],
    "fit: seed must be a whole number in": [{"seed": -1}, {"seed": 2**32}, {"seed": None}],
    "fit: collator must be a function": [{"collator": Collator}, {"collator": "pad"}],
    "fit: student must have weights that learn": [{"student": llama(8).requires_grad_(False)}],
    "fit: student must be an nn.Module, got str": [{"student": "docs_lm"}],
    "DistillationTrainer: teacher: .* for the objective TokenLoss; got None": [{"objective": None}],
    "DistillationTrainer: teacher: argument must be an nn.Module": [{"teacher": 3.0}],
    "DistillationTrainer: hidden: argument must be a loss on the layers": [{"hidden": 1.0}],
}


@pytest.mark.parametrize(
    "says, given", [(says, one) for says, many in WRONG.items() for one in many]
)
def test_what_can_teach_nothing_is_named_and_the_student_stays_as_it_was(says, given):
    student = llama(8, seed=1)
    with pytest.raises((TypeError, ValueError), match="^" + says):
        fit(**{"student": student, "data": ROWS, "objective": HardLabels()} | given)
    assert same(student, llama(8, seed=1))


def test_rows_of_any_kind_are_right_where_a_collator_makes_the_batch():
    def collate(rows):
        ids = torch.tensor([ids for ids, _ in rows])
        return {"input_ids": ids, "labels": ids}

    assert same(learnt(tuples(ROWS), collator=collate), learnt(ROWS))


def test_where_no_label_is_needed_texts_without_one_teach():
    rows = [{"input_ids": row} for row in IDS]
    one, other = (trained(llama(8, seed=1), data, teacher=TEACHER) for data in (rows, ROWS))
    assert same(one, other)
