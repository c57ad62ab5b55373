"""Token ids as people hold them, read row by row and padded again."""

import numpy as np
import pytest
import torch

from kdlab.data.token_rows import padded_batch, token_rows

IDS, LABELS = [[3, 1, 4], [1]], [[-100, 1, 4], [-100]]


def plain(rows):
    return [[column.tolist() for column in row] for row in rows]


def test_rows_are_padded_on_the_right_and_read_again():
    rows = [list(map(torch.tensor, column)) for column in (IDS, LABELS)]
    batch = padded_batch(*rows, pad=9, device="cpu")
    assert {name: column.tolist() for name, column in batch.items()} == {
        "input_ids": [[3, 1, 4], [1, 9, 9]],
        "labels": [[-100, 1, 4], [-100, -100, -100]],
        "attention_mask": [[1, 1, 1], [1, 0, 0]],
    }
    found = token_rows("batch", batch)
    assert [ids[real].tolist() for ids, real, _ in found] == IDS
    assert [labels[real].tolist() for _, real, labels in found] == LABELS


@pytest.mark.parametrize("kind", [list, np.array, torch.tensor])
def test_without_a_mask_all_is_real_and_without_labels_none_counts(kind):
    found = plain(token_rows("batch", {"input_ids": list(map(kind, IDS))}))
    assert found == [[[3, 1, 4], [True] * 3, [-100] * 3], [[1], [True], [-100]]]


@pytest.mark.parametrize(
    "batch, words",
    [
        (IDS, "batch must be a dictionary of .*, got list"),
        ({"labels": LABELS}, "batch must hold input_ids, got .'labels'"),
        ({"input_ids": "text"}, "batch must be sequences of token ids, got str"),
        ({"input_ids": [[1], ["a"]]}, r"batch\[1\] must be a sequence of token ids, got \['a'\]"),
        ({"input_ids": IDS, "labels": LABELS[::-1]}, r"columns of one shape \(B, L\), got the row"),
    ],
)
def test_what_are_no_rows_of_tokens_is_named(batch, words):
    with pytest.raises((TypeError, ValueError), match=words):
        token_rows("batch", batch)
