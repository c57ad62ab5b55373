"""What the tests of caches share: ids, a teacher that is watched, and what lies in a folder."""

import torch

ABOUT = {"teacher": "abc", "temperature": 2.0, "layers": [1, 2]}
IDS = [f"s{i}" for i in range(10)]  # at 3 a shard: 3, 3, 3, 1


class Teacher:
    """Rows that tell their id; it counts its calls and, on one of them, does something else."""

    def __init__(self, on=None, do=None):
        self.calls, self.on, self.do = [], on, do

    def __call__(self, ids):
        if len(self.calls) == self.on:
            self.do()
        self.calls.append(ids)
        number = torch.tensor([int(str(i).strip("s")) for i in ids])
        return {
            "logits": (number[:, None] + torch.arange(4) / 8).bfloat16(),
            "number": number.int(),
        }


def files(path):
    return {p.name: p.read_bytes() for p in path.iterdir()}


def fail(error):
    raise error
