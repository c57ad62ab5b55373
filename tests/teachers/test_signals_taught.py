"""kdlab.teachers.signals_taught: what is read from disk teaches as the teacher itself would."""

import copy

import pytest
import torch
from datasets import Dataset
from torch.utils.data import DataLoader
from transformers import DataCollatorWithFlattening

import kdlab as kd
from kdlab.data.rows import Collator
from kdlab.teachers import signals
from kdlab.teachers.cache import build
from kdlab.teachers.sparse import counted, sample, top_k
from kdlab.training.trainer import DistillationTrainer
from tests.signals import ROWS, TEACHER, by_hand
from tests.trainers import V, arguments, llama, texts, weights


def taught(folder, rows, collator, objective, teacher=None, evaluate=False, **own):
    args = arguments(folder, 3, 2, **own)
    student = llama(4)
    trainer = DistillationTrainer(
        student,
        args,
        teacher=teacher,
        train_dataset=rows,
        eval_dataset=rows if evaluate else None,
        data_collator=collator,
        objective=objective,
    )
    trainer.train()
    return weights(student), trainer.evaluate() if evaluate else None


def test_several_processes_read_what_one_reads(tmp_path):
    collate = kd.SignalCollator(
        signals.from_teacher(tmp_path / "c", TEACHER, ROWS, k=3), Collator()
    )
    one, several = (
        list(DataLoader(ROWS, batch_size=2, num_workers=workers, collate_fn=collate))
        for workers in (0, 2)
    )
    assert len(one) == len(several) > 1
    for mine, theirs in zip(one, several, strict=True):
        assert mine.keys() == theirs.keys()
        for name in mine:
            assert torch.equal(torch.as_tensor(mine[name]), torch.as_tensor(theirs[name]))


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("alpha, T", [(1.0, 1.0), (0.5, 2.0)])
def test_all_tokens_on_disk_teach_as_the_teacher_in_memory(side, alpha, T, tmp_path):
    """k = V leaves nothing out, so what differs is rounding to half precision."""
    kept = signals.from_teacher(tmp_path / "c", TEACHER, ROWS, k=V, temperature=T)
    pad = Collator(side=side)
    told = dict(alpha=alpha, temperature=T)
    disk, its = taught(
        tmp_path,
        ROWS,
        kd.SignalCollator(kept, pad),
        kd.TopKLoss(**told),
        evaluate=True,
    )
    bare = [{k: v for k, v in row.items() if k != "id"} for row in ROWS]
    live, others = taught(
        tmp_path, bare, pad, kd.TokenLoss(**told), copy.deepcopy(TEACHER), evaluate=True
    )
    before = weights(llama(4))
    moved = {name: (value - before[name]).abs().max() for name, value in disk.items()}
    for name, value in disk.items():
        torch.testing.assert_close(value, live[name], rtol=0, atol=float(moved[name]) / 20)
    for name in ("eval_loss", "eval_soft", "eval_perplexity"):
        assert its[name] == pytest.approx(others[name], rel=2e-3)


@pytest.mark.parametrize("divergence", [kd.forward_kl, kd.reverse_kl, kd.jsd])
def test_the_few_teach_by_the_formula(divergence, tmp_path):
    """A step of the trainer is a step by hand on k + 1 outcomes, text by text."""
    kept = signals.from_teacher(tmp_path / "c", TEACHER, ROWS, k=3)
    disk, _ = taught(
        tmp_path, ROWS[:6], kd.SignalCollator(kept), kd.TopKLoss(divergence), num_train_epochs=1
    )
    student, total, count = llama(4), 0, 0
    for row in ROWS[:6]:
        tokens, wanted = by_hand(TEACHER, row, 3)
        ids, labels = torch.tensor(row["input_ids"]), torch.tensor(row["labels"])
        learnt = (labels != -100) if (labels != -100).any() else torch.ones_like(labels).bool()
        places = [i - 1 for i in range(1, len(ids)) if learnt[i]]
        q = student(ids[None]).logits[0, places].softmax(-1)
        own = q.gather(-1, wanted.indices)
        q = torch.cat([own, (1 - own.sum(-1, keepdim=True))], -1).log()
        p = torch.cat([wanted.log_probs, wanted.tail[:, None]], -1)
        total, count = total + divergence(q, p, reduction="rows").sum(), count + len(tokens)
    (total / count).backward()
    for name, p in student.named_parameters():
        torch.testing.assert_close(disk[name], p.detach() - 0.5 * p.grad, rtol=0, atol=5e-4)


def test_draws_teach_on_average_as_the_whole_vocabulary_and_the_likeliest_do_not(tmp_path):
    """The gradient on the student's logits, over many rows of one text: each has its own draws."""
    ids, k, count = [1, 2, 3, 4], 4, 400
    rows = [{"id": i, "input_ids": ids, "labels": ids} for i in range(count)]
    torch.manual_seed(0)
    logits = torch.randn(3, V)

    def gradients(sampled):
        made = dict(k=k, temperature=2.0, sampled=sampled)
        kept = signals.from_teacher(tmp_path / str(sampled), TEACHER, rows, **made)
        batch = kd.SignalCollator(kept)(rows)
        student = logits.expand(count, 3, V).clone().requires_grad_()
        teacher, labels = batch["teacher_logits"][:, :-1], batch["labels"][:, 1:]
        loss = kd.TopKLoss(temperature=2.0).rows(student, teacher, labels)["loss"]
        return torch.autograd.grad(loss.sum(), student)[0]

    with torch.no_grad():
        p = (TEACHER(torch.tensor([ids])).logits[0, :3] / 2).softmax(-1)
    full = 2 * ((logits / 2).softmax(-1) - p).float()  # T² · (q − p) / T
    drawn = gradients(True)
    error = drawn.std(0) / count**0.5
    often = count * k * p > 5  # else the standard error is none
    apart, of_top_k = (
        ((grads.mean(0) - full) / error).abs()[often] for grads in (drawn, gradients(False))
    )
    assert len(apart) > 50
    assert (apart < 3).float().mean() > 0.97 and apart.square().mean() < 1.5
    assert (of_top_k > 3).float().mean() > 0.3 and of_top_k.square().mean() > 9


def test_draws_are_for_the_forward_kl_alone(tmp_path):
    kept = signals.from_teacher(tmp_path / "c", TEACHER, ROWS, k=3, sampled=True)
    told = dict(train_dataset=ROWS, data_collator=kd.SignalCollator(kept))
    args = arguments(tmp_path)
    for wrong in (kd.TopKLoss(kd.reverse_kl), kd.TopKLoss(kd.jsd, beta=0.1)):
        with pytest.raises(ValueError, match="objective: .*=kd.forward_kl .*got (rev|jsd)"):
            DistillationTrainer(llama(4), args, objective=wrong, **told)
    DistillationTrainer(llama(4), args, objective=kd.TopKLoss(alpha=0.5), **told)
    drawn = counted(sample(torch.randn(2, 9), 3), 9)
    labels = torch.tensor([1, 2])
    with pytest.raises(ValueError, match="TopKLoss: divergence must be forward_kl .*got jsd"):
        kd.TopKLoss(kd.jsd)(torch.randn(2, 9), drawn, labels)
    assert kd.TopKLoss()(torch.randn(2, 9), drawn, labels) > 0


def test_a_loss_by_hand_is_topks_own():
    student, teacher = torch.randn(2, 5, 9), top_k(torch.randn(2, 5, 9), 3, 2.0)
    labels = torch.randint(0, 9, (2, 5)).index_fill(1, torch.tensor([1]), -100)
    loss = kd.TopKLoss(temperature=2.0)(student, teacher, labels)
    wanted = 4 * teacher.forward_kl(student, mask=labels != -100)
    torch.testing.assert_close(loss, wanted)
    with pytest.raises(ValueError, match="made at the temperature 1.0, got 2.0"):
        kd.TopKLoss()(student, teacher, labels)
    with pytest.raises(TypeError, match="teacher_logits must be a TopK"):
        kd.TopKLoss()(student, student, labels)


def test_rows_of_datasets_keep_their_ids_on_the_way_to_the_collator(tmp_path):
    kept = signals.from_teacher(tmp_path / "c", TEACHER, Dataset.from_list(ROWS), k=3)
    one, _ = taught(tmp_path, Dataset.from_list(ROWS), kd.SignalCollator(kept), kd.TopKLoss())
    other, _ = taught(tmp_path, ROWS, kd.SignalCollator(kept), kd.TopKLoss())
    for name, value in one.items():
        assert torch.equal(value, other[name])


def test_numbers_name_rows_too(tmp_path):
    rows = [row | {"number": i} for i, row in enumerate(texts(4))]
    kept = signals.from_teacher(tmp_path / "c", TEACHER, rows, k=3, id="number")
    batch = kd.SignalCollator(kept, id="number")(rows)
    assert batch["teacher_logits"].shape == (*batch["labels"].shape, 7)
    assert not batch["teacher_logits"].is_floating_point()  # half precision would spoil ids
    read = signals.unpacked(batch["teacher_logits"])
    total = read.log_probs.exp().sum(-1) + read.tail.exp()
    counts = (batch["labels"] != -100)[:, 1:]
    torch.testing.assert_close(
        total[:, :-1][counts], torch.ones(int(counts.sum())), rtol=0, atol=1e-6
    )


def test_padded_heads_are_cut_to_the_tokens_that_exist(tmp_path):
    kept = signals.from_teacher(tmp_path / "c", TEACHER, ROWS, k=V)  # 2 V + 1 numbers, of V tokens
    found = []
    for wide in (False, True):
        student = llama(4)
        if wide:
            student.resize_token_embeddings(V + 8, mean_resizing=False)
        args = arguments(tmp_path, 3)
        trainer = DistillationTrainer(
            student,
            args,
            train_dataset=ROWS,
            data_collator=kd.SignalCollator(kept),
            objective=kd.TopKLoss(),
            vocab_size=V,
        )
        trainer.train()
        found.append(student.model.layers[0].mlp.up_proj.weight.detach())
    torch.testing.assert_close(*found)


def test_rows_without_signals_of_their_own_are_told(tmp_path):
    kept = signals.from_teacher(tmp_path / "c", TEACHER, ROWS, k=3)
    collate = kd.SignalCollator(kept)
    with pytest.raises(ValueError, match=r"ids must be among the 9 of .*got \['new'\]"):
        collate([ROWS[0] | {"id": "new"}])
    with pytest.raises(ValueError, match="rows must hold an id, 'id', got none in row 1"):
        collate([ROWS[0], texts(1)[0]])
    ids = ROWS[0]["input_ids"]
    other = [*ids[:-1], ids[-1] % (V - 1) + 1]
    labels = [-100 if y == -100 else x for x, y in zip(other, ROWS[0]["labels"], strict=True)]
    with pytest.raises(ValueError, match="learnt tokens of row 't0' .* others"):
        collate([ROWS[0] | {"input_ids": other, "labels": labels}])
    with pytest.raises(ValueError, match=r"learnt tokens of row 't0' must be the \d that .* got"):
        collate([{"id": "t0", "input_ids": [*ids, 5], "labels": [*ROWS[0]["labels"], 5]}])
    plain = build(tmp_path / "p", ["a"], lambda ids: {"x": torch.zeros(1)}, {"teacher": "a"})
    with pytest.raises(ValueError, match=r"cache of kd.signals.from_teacher .*\['teacher'\]"):
        kd.SignalCollator(plain)


def test_a_collator_that_drops_the_signals_is_named(tmp_path):
    kept = signals.from_teacher(tmp_path / "c", TEACHER, ROWS, k=3)
    with pytest.raises(ValueError, match="collator must keep .* DataCollatorWithFlattening"):
        kd.SignalCollator(kept, DataCollatorWithFlattening())(ROWS[:2])


def test_a_trainer_wants_loss_and_signals_to_fit(tmp_path):
    kept = signals.from_teacher(tmp_path / "c", TEACHER, ROWS, k=3, temperature=2.0)
    told = dict(train_dataset=ROWS, data_collator=kd.SignalCollator(kept))
    args = arguments(tmp_path)
    for wrong, words in (
        ({"objective": kd.TokenLoss()}, "objective: .*kd.TopKLoss beside .*, got TokenLoss"),
        ({"objective": kd.TopKLoss()}, "objective: .*temperature of the signals, 2, got 1"),
        (
            {"objective": kd.TopKLoss(temperature=2.0), "on_policy": kd.OnPolicy(0.5, 4)},
            "on_policy: .*None where signals on disk teach",
        ),
        (
            {"objective": kd.TopKLoss(), "data_collator": Collator()},
            "data_collator: .*SignalCollator, .*got Collator",
        ),
    ):
        with pytest.raises(ValueError, match=words):
            DistillationTrainer(llama(4), args, **told | wrong)
