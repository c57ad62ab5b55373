"""Learning rates of the arms of lesson 08, chosen on texts that nobody trained on; writes
results/encoders.csv.

    python benchmarks/encoders.py        about eight minutes on two CPU cores

Samples 100 to 103 of 500 docstrings each, which the lesson (samples 0 to 3) does not use, scored on
300 held-out texts that are not among the lesson's 800 test texts: the training pool would not do,
since the teacher has seen its labels."""

import copy
from pathlib import Path

import kdlab as kd  # first: it sets how torch's threads wait

import pandas as pd
import torch
from datasets import Dataset

SAMPLES = range(100, 104)
RATES = {  # for a start from the teacher's blocks, and for a random one
    True: (1e-4, 2e-4, 5e-4, 1e-3),
    False: (5e-4, 1e-3, 2e-3, 4e-3, 8e-3, 16e-3),
}
RESULTS = Path(__file__).parent / "results" / "encoders.csv"


def main():
    kd.setup()
    teacher, tokenizer = kd.text_classifier("docs_bert")
    collate = kd.Collator(tokenizer)

    def encode(part):
        ids = tokenizer(list(part["text"]), truncation=True, max_length=24)
        return Dataset.from_dict(
            {k: ids[k] for k in ("input_ids", "attention_mask")} | {"labels": part["label"]}
        )

    def fresh(width):
        config = copy.deepcopy(teacher.config)
        config.num_hidden_layers, config.hidden_size, config.intermediate_size = 2, width, 4 * width
        return type(teacher)(config)

    soft, layer_map = kd.KDLoss(temperature=2, alpha=0.9), [(0, 1), (1, 3)]
    arms = {  # blocks, objective, hidden, epochs
        "two blocks: labels": ([0, 2], kd.HardLabels(), None, 2),
        "two blocks: logits": ([0, 2], soft, None, 2),
        "one block: logits": ([0], soft, None, 2),
        "half as wide: logits": ([], soft, None, 8),
        "half as wide: layer map": ([], soft, lambda: kd.LayerMap(layer_map), 4),
        "half as wide: relations": ([], soft, kd.Relations, 4),
    }
    frame = []
    for sample in SAMPLES:
        texts = kd.load_text("docstrings", seed=sample, sizes=(500, 0, 1100))
        rows, held = encode(texts["train"]), encode(texts["test"].select(range(800, 1100)))
        batch = collate([row for row in held.select_columns(["input_ids", "attention_mask"])])
        for arm, (cut, objective, hidden, epochs) in arms.items():
            for lr in RATES[bool(cut)]:
                torch.manual_seed(sample)
                student = kd.student_from(teacher, layers=cut) if cut else fresh(64)
                kd.fit(
                    student,
                    rows,
                    collator=collate,
                    teacher=teacher if objective.needs_teacher else None,
                    objective=objective,
                    hidden=hidden and hidden(),
                    epochs=epochs,
                    batch=16,
                    lr=lr,
                    seed=sample,
                )
                with torch.no_grad():
                    right = student(**batch).logits.argmax(-1) == torch.tensor(held["labels"])
                frame.append({"arm": arm, "lr": lr, "accuracy": 100 * right.float().mean().item()})
        print(sample, flush=True)
    mean = (
        pd.DataFrame(frame)
        .groupby(["arm", "lr"], as_index=False)["accuracy"]
        .mean()
        .round({"accuracy": 1})
    )
    mean["best"] = mean.groupby("arm")["accuracy"].transform("max") == mean["accuracy"]
    mean.to_csv(RESULTS, index=False)
    print(mean.to_string(index=False))


if __name__ == "__main__":
    main()
