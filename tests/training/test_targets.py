"""Labels of every kind and none: what of a batch is learnt, against the formulas."""

import pytest
import torch
import torch.nn.functional as F
import transformers as hf
from trainers import V, bert, llama, loss_of, sentences, texts, trained, trainer_of, weights, whole

import kdlab as kd


@pytest.mark.parametrize("how", ["no column", "all −100"])
def test_rows_without_labels_are_learnt_whole_where_the_teacher_is_enough(tmp_path, how):
    rows, students = (
        [{"input_ids": r["input_ids"]} for r in texts(8)],
        [llama(8, seed=1), llama(8, seed=1)],
    )
    unlabelled = (
        rows if how == "no column" else [r | {"labels": [-100] * len(r["input_ids"])} for r in rows]
    )
    for student, data in zip(students, (unlabelled, whole(rows)), strict=True):
        trained(tmp_path, student, llama(16, seed=2), data)
    assert all(torch.equal(weights(students[0])[k], v) for k, v in weights(students[1]).items())
    assert not torch.equal(students[0].lm_head.weight, llama(8, seed=1).lm_head.weight)


@pytest.mark.parametrize("how", ["no column", "all −100"])
@pytest.mark.parametrize(
    "objective", [kd.KDLoss(alpha=1.0), kd.TokenLoss()], ids=["KDLoss", "TokenLoss"]
)
def test_sentences_without_labels_count_where_the_teacher_is_enough(tmp_path, objective, how):
    rows = [{"input_ids": r["input_ids"]} for r in sentences(6)]
    student, teacher = bert(8, seed=1), bert(16, seed=2)
    data = rows if how == "no column" else [r | {"labels": -100} for r in rows]
    T = objective.temperature
    logs = [
        [(m(torch.tensor([r["input_ids"]])).logits[0] / T).log_softmax(-1) for r in rows]
        for m in (student, teacher)
    ]
    expected = sum((p.exp() * (p - q)).sum() for q, p in zip(*logs, strict=True)) * T * T / 6
    trainer = trainer_of(
        tmp_path,
        student,
        teacher,
        objective=objective,
        eval_dataset=data,
        own={"per_device_eval_batch_size": 6},
    )
    assert loss_of(trainer, data, side="left").item() == pytest.approx(expected.item(), abs=1e-9)
    assert trainer.evaluate()["eval_loss"] == pytest.approx(expected.item(), abs=1e-6)


def test_an_objective_that_needs_labels_says_so(tmp_path):
    for objective in (kd.KDLoss(alpha=0.5), kd.HardLabels(), kd.DKDLoss()):
        with pytest.raises(
            ValueError, match="batches must hold labels for an objective that needs them"
        ):
            loss_of(
                trainer_of(tmp_path, bert(8), bert(8, seed=2), objective=objective),
                [{"input_ids": [1, 2]}],
            )


def with_head(kind, labels, seed=0):
    config = hf.BertConfig(
        vocab_size=V,
        hidden_size=8,
        intermediate_size=16,
        num_hidden_layers=1,
        num_labels=labels,
        num_attention_heads=2,
        initializer_range=0.3,
        hidden_dropout_prob=0.0,
        problem_type=kind,
        attention_probs_dropout_prob=0.0,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return hf.BertForSequenceClassification(config).double().eval()


@pytest.mark.parametrize("told", ["multi_label_classification", None])
@pytest.mark.parametrize("T, alpha", [(1.0, 1.0), (3.0, 0.4)])
def test_a_head_of_several_labels_learns_each_as_a_question_of_two_classes(
    tmp_path, told, T, alpha
):
    student, teacher = with_head(told, 4, 1), with_head(told, 4, 2)
    rows = [
        r | {"labels": [float(i % 2), 1.0, 0.0, float(i > 2)]} for i, r in enumerate(sentences(5))
    ]
    z, t = (
        torch.cat([m(torch.tensor([r["input_ids"]])).logits for r in rows])
        for m in (student, teacher)
    )
    p, q = torch.sigmoid(t / T), torch.sigmoid(z / T)
    kl = p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()
    hard = F.binary_cross_entropy_with_logits(
        z, torch.tensor([r["labels"] for r in rows]).double(), reduction="none"
    )
    expected = (alpha * T * T * kl + (1 - alpha) * hard).mean()
    trainer = trainer_of(tmp_path, student, teacher, objective=kd.KDLoss(T, alpha))
    assert loss_of(trainer, rows).item() == pytest.approx(expected.item(), abs=1e-9)
    with pytest.raises(ValueError, match="labels must be 0 or 1.*got 0 to 0.7"):
        loss_of(trainer, [r | {"labels": [0.7, 0.0, 0.0, 0.0]} for r in rows])


@pytest.mark.parametrize("told, width", [("regression", 1), (None, 1), ("regression", 3)])
@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_a_head_of_numbers_learns_by_the_square(tmp_path, told, width, alpha):
    student, teacher = with_head(told, width, 1), with_head(told, width, 2)
    rows = [
        r | {"labels": 0.5 * i if width == 1 else [0.5 * i] * 3} for i, r in enumerate(sentences(5))
    ]
    z, t = (
        torch.cat([m(torch.tensor([r["input_ids"]])).logits for r in rows])
        for m in (student, teacher)
    )
    y = torch.tensor([r["labels"] for r in rows]).double().view(5, -1)
    expected = alpha * (z - t).square().mean() + (1 - alpha) * (z - y).square().mean()
    trainer = trainer_of(
        tmp_path, student, teacher if alpha else None, objective=kd.SquaredError(alpha)
    )
    assert loss_of(trainer, rows).item() == pytest.approx(expected.item(), abs=1e-7)
    assert (
        trained(tmp_path, student, teacher, rows).state.log_history[0]["loss"] > 0
    )  # SquaredError by itself


def test_labels_of_another_kind_say_what_was_expected(tmp_path):
    student, teacher = bert(8), bert(8, seed=2)
    rows = [r | {"labels": 0.5} for r in sentences(3)]
    with pytest.raises(
        ValueError, match="labels must be whole numbers for a head of classes.*regression"
    ):
        loss_of(trainer_of(tmp_path, student, teacher), rows)
    with pytest.raises(
        TypeError,
        match="labels must be numbers, got the text 'positive' in row 0; number the classes",
    ):
        trained(tmp_path, student, teacher, [r | {"labels": "positive"} for r in rows])
    with pytest.raises(ValueError, match="objective: argument must be kd.SquaredError"):
        trainer_of(
            tmp_path,
            with_head("regression", 1),
            with_head("regression", 1, 2),
            objective=kd.KDLoss(),
        )
    with pytest.raises(ValueError, match="labels must be one a row of the student's answers"):
        loss_of(trainer_of(tmp_path, student, teacher), [{"input_ids": [1, 2], "labels": [0, 1]}])


def test_label_names_are_heard(tmp_path):
    rows = [{"input_ids": r["input_ids"], "labels": abs(r["labels"])} for r in sentences(8)]
    students = [bert(8, seed=1), bert(8, seed=1)]
    renamed = [{"input_ids": r["input_ids"], "topic": r["labels"]} for r in rows]
    trained(tmp_path, students[0], bert(16, seed=2), rows)
    done = trained(
        tmp_path,
        students[1],
        bert(16, seed=2),
        renamed,
        own={"label_names": ["topic"]},
        eval_dataset=renamed,
    )
    assert all(torch.equal(weights(students[0])[k], v) for k, v in weights(students[1]).items())
    assert done.evaluate()["eval_loss"] > 0
    with pytest.raises(ValueError, match="args: argument must be with one name in label_names"):
        trainer_of(
            tmp_path,
            bert(8),
            bert(8, seed=2),
            own={"label_names": ["start_positions", "end_positions"]},
        )
