"""kdlab.lessons.sizes: the students of one benchmark, and one of them taught in the lesson."""

import pandas as pd
import pytest
import torch

import kdlab as kd
from kdlab.lessons import sizes
from kdlab.lessons.figures import lesson13


@pytest.fixture(scope="module")
def docs():
    return kd.language_model("docs_lm")


def test_texts_are_apart_and_whole(docs):
    parts = sizes.texts(docs[1])
    assert [len(parts[p]) for p in ("validation", "test")] == [128, 256]
    assert all(rows.shape[1] == sizes.LENGTH for rows in parts.values())
    train, held = ({tuple(row) for row in parts[p].tolist()} for p in ("train", "validation"))
    assert len(train & held) <= 0.02 * len(held)  # two docstrings may begin alike


def test_every_width_is_a_model_of_its_own_size(docs):
    found = [kd.parameters(sizes.narrower(docs[0].config, width)) for width in sizes.BLOCKS]
    assert found == sorted(found) and found[3] == kd.parameters(docs[0])


def test_labels_and_teacher_see_the_same_texts(docs, tmp_path, monkeypatch):
    rows, seen = sizes.texts(docs[1])["train"][:40], []
    signals = sizes.ask(tmp_path / "new", docs[0], rows, range(40))
    student = sizes.narrower(docs[0].config, 16)
    student.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    for loss in (sizes.by_labels(rows, 3), sizes.by_signals(signals, rows, 3)):
        loss(student, 2).backward()
    assert torch.equal(*seen) and seen[0].shape == (sizes.BATCH, sizes.LENGTH)
    assert sizes.order(rows, 2, 3) != sizes.order(rows, 2, 4)


def test_the_figure_takes_the_benchmark_s_table_and_one_live_student():
    rows = [{"arm": "its teacher", "parameters": 541_536, "nats": 2.9}]
    for n in (20_000, 100_000):
        for arm in ("labels", "teacher"):
            for steps in (150, 600):
                for seed in (1, 2, 3, 4):
                    row = {"arm": arm, "parameters": n, "seed": seed, "steps": steps}
                    rows.append(row | {"nats": 5 - steps / 1000 - 0.01 * seed})
    picture = lesson13.by_size(pd.DataFrame(rows), {20_000: 4.7})
    assert "a teacher of 542 thousand parameters" in repr(picture)
