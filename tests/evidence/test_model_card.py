"""kdlab.evidence.model_card: the hub's library reads it, and it says what was measured."""

import pytest
import torch
from huggingface_hub import ModelCard
from torch import nn

import kdlab as kd

LABELS = torch.arange(60) % 3
TEACHER = 4.0 * torch.eye(3)[LABELS]
STUDENT = TEACHER.clone()
STUDENT[[4, 7, 10]] = torch.tensor([9.0, 0, 0])
AUDIT = kd.audit(TEACHER, STUDENT, LABELS, ["a|b", "yes", "no"])
PLAIN = {"name": "small", "teacher": "the large one", "data": "digits", "objective": kd.KDLoss()}


def rows(card):
    return [
        [cell.strip() for cell in line.strip("| ").replace("\\|", "§").split("|")]
        for line in card.text.splitlines()
        if line.startswith("|")
    ]


def test_what_was_measured_stands_in_it_and_the_hub_s_library_reads_it_back(tmp_path):
    costs = kd.costs({"teacher": nn.Linear(4, 3), "student": nn.Linear(4, 2)}, torch.zeros(2, 4))
    card = kd.model_card(
        "small", "org/large", "org/texts", kd.KDLoss(temperature=2), AUDIT, costs,
        "Not for medicine.", "apache-2.0", "en",
    )  # fmt: skip
    card.save(tmp_path / "README.md")
    again = ModelCard.load(tmp_path / "README.md")
    assert again.data.to_dict() == {
        "license": "apache-2.0",
        "language": ["en"],
        "base_model": "org/large",
        "datasets": ["org/texts"],
        "tags": ["knowledge-distillation", "kdlab"],
    }
    found = {row[0]: row[1:] for row in rows(again)}
    assert found["objective"] == ["`KDLoss(temperature=2, alpha=0.9)`"]
    row = AUDIT.table().loc["yes"]
    change = f"-15.0 ({row['low']:.1f} to {row['high']:.1f})"
    assert found["yes"] == ["20", "100.0", "85.0", change, row["verdict"]]
    assert found["a§b"][0] == "20"  # a bar in a name does not end its cell
    assert found["parameters"] == ["15", "10"] and found["FLOPs a row"] == ["24", "16"]
    assert "dollars a million rows" not in found  # no price, no row
    assert "repeats 0 of the teacher's 0 mistakes, and makes 3" in again.text
    assert all(sentence in again.text for sentence in AUDIT.told())
    assert "Not for medicine." in again.text and "Not measured" not in again.text


def test_what_was_not_measured_says_so_and_words_are_no_hub_ids():
    card = kd.model_card(**PLAIN)
    assert card.text.count("Not measured.") == 2 and "inherits its teacher's mistakes" in card.text
    assert set(card.data.to_dict()) == {"tags"}
    assert "| teacher | the large one |" in card.text


@pytest.mark.parametrize(
    "change, error, words",
    [
        ({"name": ""}, ValueError, "name"),
        ({"teacher": nn.Linear(1, 1)}, TypeError, "teacher"),
        ({"objective": 3}, TypeError, "objective"),
        ({"audit": 3}, TypeError, "audit"),
        ({"costs": {}}, TypeError, "costs"),
        ({"license": ""}, ValueError, "license"),
        ({"language": [3]}, TypeError, "language"),
        ({"limits": None}, TypeError, "limits"),
    ],
)
def test_what_cannot_stand_on_a_card_is_told(change, error, words):
    with pytest.raises(error, match=f"^model_card: {words}"):
        kd.model_card(**PLAIN | change)
