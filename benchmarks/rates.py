"""Learning rates and steps of the arms of lesson 11, chosen on validation texts; writes
results/rates.csv.

    python benchmarks/rates.py        about seven minutes on two CPU cores

Every arm is trained with four rates for 80 steps on the texts of three fields, labels alone for 20
steps too, since they overfit a small text; scored on docstrings of the field that the student was
not given and that are not among the lessons' test texts. The lessons take the best."""

import copy
import math
from pathlib import Path

import kdlab as kd  # first: it sets how torch's threads wait

import pandas as pd
import torch

RATES, FIELDS, PROMPT, LENGTH = (1e-3, 2e-3, 5e-3, 1e-2), 3, 16, 80
RESULTS = Path(__file__).parent / "results" / "rates.csv"


class Top(kd.Objective):
    """The teacher's k likeliest tokens with a tail, as lesson 11 gets them from an API."""

    def __init__(self, k):
        self.k = k

    def rows(self, student_logits, teacher_logits, labels):
        """As of every objective: {"loss": a row}."""
        return {
            "loss": (
                kd.sparse.top_k(teacher_logits, self.k).forward_kl(student_logits, reduction="rows")
            )
        }


def arms(teacher, tokenizer, texts):
    """{arm: (rows of ids, tokens of prompt, objective)} of one field, and its validation rows."""
    long, short = (kd.text.windows(tokenizer, texts["train"], length) for length in (128, LENGTH))
    long, short = (
        x[torch.randperm(len(x), generator=torch.Generator().manual_seed(0))] for x in (long, short)
    )
    written = kd.completions(teacher, short[:32, :PROMPT], LENGTH - PROMPT, eos=())["input_ids"]
    objectives, found = {"labels": kd.HardLabels(), "all logits": kd.TokenLoss()}, {}
    for name, rows in (("human", short[:32]), ("teacher's", written)):
        found |= {
            f"{name} text, {kind}": (rows, PROMPT, objective)
            for kind, objective in objectives.items()
        }
    found |= {f"teacher's text, top {k}": (written, PROMPT, Top(k)) for k in (5, 20)}
    return found, long[48:80]


def main():
    kd.setup()
    teacher, tokenizer = kd.language_model("docs_lm")
    base, _ = kd.language_model("docs_base")
    frame = []
    for field, texts in kd.text.small_texts(count=FIELDS).items():
        found, held = arms(teacher, tokenizer, texts)
        held = {"input_ids": held, "attention_mask": torch.ones_like(held), "labels": held}
        for arm, (ids, prompt, objective) in found.items():
            rows = [
                {"input_ids": r, "labels": torch.where(torch.arange(len(r)) < prompt, -100, r)}
                for r in ids
            ]
            for lr in RATES:
                for steps in (80,) if objective.needs_teacher else (20, 80):
                    student = copy.deepcopy(base)
                    kd.fit(
                        student,
                        rows,
                        lr=lr,
                        steps=steps,
                        batch=8,
                        objective=objective,
                        teacher=teacher if objective.needs_teacher else None,
                    )
                    nats = math.log(kd.perplexity(student, held))
                    frame.append(
                        {"arm": arm, "lr": lr, "steps": steps, "field": field, "nats": nats}
                    )
        print(field, flush=True)
    mean = (
        pd.DataFrame(frame).groupby(["arm", "lr", "steps"], as_index=False)["nats"].mean().round(3)
    )
    mean["best"] = mean.groupby("arm")["nats"].transform("min") == mean["nats"]
    mean.to_csv(RESULTS, index=False)
    print(mean[mean["best"]].to_string(index=False))


if __name__ == "__main__":
    main()
