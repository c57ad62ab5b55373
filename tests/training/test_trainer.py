"""DistillationTrainer against a plain loop: one sequence at a time, no padding, the sums of the
whole step."""

import pytest
import torch
import torch.nn.functional as F
from trainers import (
    Collate,
    Pairs,
    agree,
    bert,
    llama,
    plain_terms,
    sentences,
    texts,
    train,
)

from kdlab import HardLabels, KDLoss, LabelSmoothing, jsd
from kdlab.losses.kd import TokenLoss
from kdlab.training import trainer


def plain_loop(student, teacher, rows, objective, step=8, lr=0.5, hidden=None):
    """SGD on Σ / N + Σ / M, each sequence alone; → the mean loss a step."""
    student.train()
    learnt = [*student.parameters(), *(hidden.parameters() if hidden else [])]
    optimiser, losses = torch.optim.SGD(learnt, lr), []
    for at in range(0, len(rows), step):
        part, total, extra, N, M = rows[at : at + step], 0.0, 0.0, 0, 0
        for row in part:
            ids, y = torch.tensor([row["input_ids"]]), torch.tensor(row["labels"])
            s = student(ids, output_hidden_states=True)
            with torch.no_grad():
                t = teacher(ids, output_hidden_states=True)
            z, p, y = (
                (s.logits[0, :-1], t.logits[0, :-1], y[1:])
                if y.ndim
                else (s.logits, t.logits, y[None])
            )
            keep = y >= 0
            if objective.alpha == 1 and not keep.any():  # a text without labels is learnt whole
                keep, y = torch.ones_like(keep), ids[0, 1:]
            N, M = N + int(keep.sum()), M + int(keep.any())
            if keep.any():
                total = total + plain_terms(objective, z[keep], p[keep], y[keep])
                if hidden:
                    extra = (
                        extra
                        + (hidden.bridge(s.hidden_states[1][0]) - t.hidden_states[1][0])
                        .square()
                        .mean()
                    )
        loss = total / max(N, 1) + extra / max(M, 1)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return losses


LAYOUTS = [(8, 1, "right", 0), (2, 4, "right", 3), (4, 2, "left", 2), (1, 8, "left", 0)]


@pytest.mark.parametrize("size, accumulated, side, more", LAYOUTS)
@pytest.mark.parametrize("kind", ["language", "classifier"])
def test_weights_are_those_of_a_plain_loop(tmp_path, kind, size, accumulated, side, more):
    build, rows = (llama, texts(24)) if kind == "language" else (bert, sentences(24))
    objective = (TokenLoss if kind == "language" else KDLoss)(temperature=2.0, alpha=0.3)
    student, reference, teacher = build(8, seed=1), build(8, seed=1), build(16, seed=2)
    losses = plain_loop(reference, teacher, rows, objective)
    done = train(
        tmp_path, student, rows, size, accumulated, side, more, teacher=teacher, objective=objective
    )
    agree(student, reference)
    history = done.state.log_history[:-1]
    assert [round(h["loss"], 3) for h in history] == [round(v, 3) for v in losses]
    for h in history:  # the terms are averaged as the loss is
        assert h["loss"] == pytest.approx(0.3 * 4 * h["soft"] + 0.7 * h["hard"], abs=2e-4)


@pytest.mark.parametrize(
    "build, rows", [(llama, texts(24)), (bert, sentences(24))], ids=["language", "classifier"]
)
def test_hidden_layers_and_their_projector_are_trained_along(tmp_path, build, rows):
    student, reference, teacher = build(8, seed=1), build(8, seed=1), build(16, seed=2)
    objective = TokenLoss() if build is llama else KDLoss()
    hidden, other = Pairs(), Pairs()
    other.prepare(reference, teacher)
    plain_loop(reference, teacher, rows, objective, hidden=other)
    start = other.bridge.weight.clone()
    done = train(tmp_path, student, rows, 2, 4, teacher=teacher, hidden=hidden)
    agree(student, reference)
    agree(hidden, other)
    assert (
        not torch.equal(start, Pairs.initial(reference, teacher))
        and done.state.log_history[0]["hidden"] > 0
    )
    assert list(student.state_dict()) == list(reference.state_dict())
    done.save_model(tmp_path / "saved")
    _, found = type(student).from_pretrained(tmp_path / "saved", output_loading_info=True)
    assert not found["unexpected_keys"] and not found["missing_keys"]


def test_own_completions_take_the_place_of_the_data_before_anything_is_counted(tmp_path):
    def own(model, batches, step):
        assert model is student and len(batches) == 4
        seen.append(step)
        return [
            Collate("right", 1)(texts(3, seed=100 * step + i)) if i % 2 else b
            for i, b in enumerate(batches)
        ]

    seen, rows, mixed = [], texts(16), []
    for step in (0, 1):
        for i in range(4):
            at = 8 * step + 2 * i
            mixed.append(texts(3, seed=100 * step + i) if i % 2 else rows[at : at + 2])
    student, reference, teacher = llama(8, seed=1), llama(8, seed=1), llama(16, seed=2)
    plain_loop(reference, teacher, sum(mixed, []), TokenLoss(), step=10)
    train(tmp_path, student, rows, 2, 4, teacher=teacher, on_policy=own)
    assert seen == [0, 1]
    agree(student, reference)


def test_a_step_without_a_token_that_counts_changes_nothing(tmp_path):
    rows = [r | {"labels": [-100] * len(r["labels"])} for r in texts(8)]
    student, before = llama(8, seed=1), llama(8, seed=1)
    done = train(
        tmp_path,
        student,
        rows,
        2,
        4,
        teacher=llama(16, seed=2),
        objective=TokenLoss(alpha=0.5),
        hidden=Pairs(),
    )
    agree(student, before, 1e-30)
    assert done.state.log_history[0]["loss"] == 0


def test_a_first_token_alone_does_not_count(tmp_path):
    only = [
        r | {"labels": r["input_ids"][:1] + [-100] * (len(r["input_ids"]) - 1)} for r in texts(4)
    ]
    for side in ("left", "right"):
        student = llama(8, seed=1)
        train(tmp_path, student, only, 2, 2, side, 2, teacher=llama(16, seed=2))
        agree(student, llama(8, seed=1), 1e-30)


@pytest.mark.parametrize("fused", [False, True])
def test_evaluation_is_the_mean_over_a_batchs_tokens_and_leaves_the_modes(tmp_path, fused):
    rows = texts(4)
    student, teacher = llama(8, seed=1), llama(16, seed=2)
    loss = plain_loop(llama(8, seed=1), teacher, rows, TokenLoss())[0]
    done = train(
        tmp_path,
        student,
        rows,
        4,
        1,
        teacher=teacher.train(),
        fused=fused,
        eval_dataset=rows,
        own={"learning_rate": 0.0, "prediction_loss_only": fused},
    )
    assert not teacher.training and not any(p.requires_grad for p in teacher.parameters())
    assert done.evaluate()["eval_loss"] == pytest.approx(loss, abs=1e-6) and not teacher.training
    if not fused:
        assert done.predict(rows).predictions.shape == (
            4,
            max(len(r["input_ids"]) for r in rows),
            32,
        )


@pytest.mark.parametrize(
    "divergence", [trainer.TokenLoss(temperature=2.0, alpha=0.4), TokenLoss(jsd, beta=0.3)]
)
def test_fused_equals_plain(tmp_path, divergence):
    students = []
    for fused in (True, False):
        students.append(llama(8, seed=1))
        done = train(
            tmp_path,
            students[-1],
            texts(16),
            2,
            4,
            "left",
            2,
            teacher=llama(16, seed=2),
            fused=fused,
            objective=divergence,
        )
        students.append(done.state.log_history[0]["loss"])
    agree(students[0], students[2])
    assert students[1] == pytest.approx(students[3], abs=1e-6)


def test_precomputed_logits_need_no_teacher(tmp_path):
    rows, teacher = sentences(16), bert(16, seed=2)
    students = [bert(8, seed=1), bert(8, seed=1)]
    train(tmp_path, students[0], rows, 2, 4, teacher=teacher)
    with torch.no_grad():
        rows = [
            r | {"teacher_logits": teacher(torch.tensor([r["input_ids"]])).logits[0].tolist()}
            for r in rows
        ]
    train(tmp_path, students[1], rows, 2, 4, teacher=None)
    agree(students[0], students[1], 1e-6)  # the logits came as float32


@pytest.mark.parametrize("objective, smoothing", [(HardLabels(), 0.0), (LabelSmoothing(0.2), 0.2)])
def test_without_a_teacher(tmp_path, objective, smoothing):
    rows, student, reference = texts(8), llama(8, seed=1), llama(8, seed=1)
    train(tmp_path, student, rows, 2, 4, teacher=None, objective=objective)
    parts = [
        (reference(torch.tensor([r["input_ids"]])).logits[0, :-1], torch.tensor(r["labels"])[1:])
        for r in rows
    ]
    z, y = (torch.cat(x) for x in zip(*parts, strict=True))
    F.cross_entropy(z, y, label_smoothing=smoothing).backward()
    with torch.no_grad():
        for p in reference.parameters():
            p -= 0.5 * p.grad
    agree(student, reference)


def test_labels_alone_pass_over_another_vocabulary_in_their_batches(tmp_path):
    rows, students = sentences(16), [bert(8, seed=1), bert(8, seed=1)]
    foreign = [r | {"teacher_logits": [9.0] * 7} for r in rows]  # 7 classes where the student has 3
    for student, data in zip(students, (rows, foreign), strict=True):
        train(tmp_path, student, data, 2, 4, teacher=None, objective=HardLabels())
    agree(students[0], students[1])
