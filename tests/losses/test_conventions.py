"""The table of conventions: its shape, and kdlab's own row computed from kdlab's own functions."""

import inspect

import numpy as np
import pandas as pd
import pytest
import torch

from kdlab import KDLoss, forward_kl, jsd
from kdlab.losses.conventions import conventions
from kdlab.losses.kd import TokenLoss

WORDS = {
    "T²": {"yes", "no", "no T"},
    "soft term": {"divergence", "cross-entropy"},
    "beta weighs": {"teacher", "no beta"},
    "alpha weighs": {"soft", "hard", "two weights", "no hard term"},
    "first": {"student", "teacher"},
    "mean over": {"tokens that count", "rows", "rows and classes"},
}


def test_the_table_is_whole_and_its_words_are_few():
    table = conventions()
    assert (
        isinstance(table, pd.DataFrame)
        and table.index.names == ["library", "loss"]
        and table.index.is_unique
    )
    assert set(table.index.unique("library")) == {
        "kdlab",
        "TRL",
        "Liger-Kernel",
        "torchtune",
        "torchdistill",
        "Keras",
        "PyTorch",
    }
    assert {column: set(table[column]) for column in WORDS} == WORDS
    for column in set(table) - set(WORDS):
        assert table[column].str.len().between(5, 160).all()
    assert set(table) - set(WORDS) == {"note", "read in"}


def test_the_table_is_a_new_one_each_time():
    table = conventions()
    table["T²"] = "yes"
    assert conventions().loc["TRL", "T²"].tolist() == ["no"]


def test_the_table_needs_no_peer():
    imports = [
        line
        for line in inspect.getsource(inspect.getmodule(conventions)).splitlines()
        if "import " in line
    ]
    assert imports == ["import pandas as pd"]


T, ALPHA, BETA = 3.0, 0.3, 0.2


def softmax(z, temperature=1.0):
    e = np.exp(z / temperature)
    return e / e.sum(-1, keepdims=True)


@pytest.fixture(scope="module")
def numbers():
    """Logits (2, 4, 7) of a student and a teacher, labels of which three are −100, and plain sums
    over them."""
    rng = np.random.default_rng(0)
    s, t, y = rng.normal(size=(2, 4, 7)), rng.normal(size=(2, 4, 7)), rng.integers(0, 7, (2, 4))
    y[0, 1] = y[1, 0] = y[1, 3] = -100
    rows = {"soft": [], "hard": [], "jsd": [], "entropy": []}
    for i, j in zip(*np.nonzero(y != -100), strict=True):
        p, q = softmax(t[i, j], T), softmax(s[i, j], T)
        rows["soft"].append((p * np.log(p / q)).sum())
        rows["hard"].append(-np.log(softmax(s[i, j])[y[i, j]]))
        rows["entropy"].append(-(p * np.log(p)).sum())
        m = BETA * p + (1 - BETA) * q
        rows["jsd"].append(
            BETA * (p * np.log(p / m)).sum() + (1 - BETA) * (q * np.log(q / m)).sum()
        )
    assert len(rows["soft"]) == 5
    return *(torch.tensor(z) for z in (s, t, y)), {
        key: np.mean(values) for key, values in rows.items()
    }


@pytest.mark.parametrize("loss", [KDLoss, TokenLoss])
def test_kdlabs_row_is_true(loss, numbers):
    s, t, y, mean = numbers
    row = conventions().loc[("kdlab", "KDLoss, TokenLoss")]
    of_soft = {"soft": ALPHA, "hard": 1 - ALPHA}[row["alpha weighs"]]
    expected = (
        of_soft * {"yes": T**2, "no": 1.0}[row["T²"]] * mean["soft"] + (1 - of_soft) * mean["hard"]
    )
    assert row["mean over"] == "tokens that count"  # that is what the sums above were divided by
    first, second = {"student": (s, t), "teacher": (t, s)}[row["first"]]
    assert loss(temperature=T, alpha=ALPHA)(first, second, y).item() == pytest.approx(
        expected, rel=1e-10
    )
    assert loss(scale="none", temperature=T, alpha=1.0)(s, t, y).item() == pytest.approx(
        mean["soft"], rel=1e-10
    )
    at_equality = {"divergence": 0.0, "cross-entropy": mean["entropy"]}[row["soft term"]]
    assert loss(temperature=T, alpha=1.0)(s, s, y).item() == at_equality


def test_beta_weighs_the_teacher(numbers):
    s, t, y, mean = numbers
    teacher = conventions().loc[("kdlab", "KDLoss, TokenLoss"), "beta weighs"] == "teacher"
    beta = BETA if teacher else 1 - BETA
    assert jsd(s, t, beta, temperature=T, mask=y >= 0).item() == pytest.approx(
        mean["jsd"], rel=1e-10
    )
    assert jsd(s, t, 0, temperature=T, mask=y >= 0).item() == pytest.approx(mean["soft"], rel=1e-10)
    assert forward_kl(s, t, T, y >= 0).item() == pytest.approx(mean["soft"], rel=1e-10)
    assert TokenLoss(jsd, temperature=T, beta=BETA)(s, t, y).item() == pytest.approx(
        T**2 * mean["jsd"], rel=1e-10
    )
