"""What the tests of signals on disk share: texts, a teacher, and its signals by hand."""

import torch

from kdlab.teachers.sparse import top_k
from tests.trainers import llama, texts

ROWS = [row | {"id": f"t{i}"} for i, row in enumerate(texts(9))]
TEACHER = llama(8, seed=3)


def by_hand(teacher, row, k, temperature=1.0):
    """The learnt tokens of one text, read alone, and the teacher's top k of each."""
    ids, labels = torch.tensor(row["input_ids"]), torch.tensor(row["labels"])
    learnt = labels != -100
    learnt = learnt if learnt.any() else torch.ones_like(learnt)
    places = [i for i in range(1, len(ids)) if learnt[i]]
    with torch.no_grad():
        logits = teacher(ids[None]).logits[0]
    return ids[places], top_k(logits[[i - 1 for i in places]], k, temperature)
