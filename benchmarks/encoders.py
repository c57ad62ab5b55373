"""Learning rates of the arms of lesson 06, chosen on validation texts of other samples; writes results/encoders.csv.

    python benchmarks/encoders.py        about five minutes on two CPU cores

Samples 100 to 102 of 500 docstrings each, which the lesson (samples 0 to 3) does not use; scored on their validation
texts. The lesson takes one rate for students with random weights and one for those made of the teacher's blocks.
"""

import copy
from pathlib import Path

import kdlab as kd  # first: it sets how torch's threads wait

import pandas as pd
import torch
from datasets import Dataset
from transformers import DataCollatorWithPadding

RATES, SAMPLES = (5e-4, 1e-3, 2e-3, 4e-3), (100, 101, 102)
RESULTS = Path(__file__).parent / "results" / "encoders.csv"


def main():
    kd.setup()
    teacher, tokenizer = kd.text_classifier("docs_bert")
    collate = DataCollatorWithPadding(tokenizer)

    def encode(part):
        ids = tokenizer(list(part["text"]), truncation=True, max_length=32)
        return Dataset.from_dict({k: ids[k] for k in ("input_ids", "attention_mask")} | {"labels": part["label"]})

    def fresh(width):
        config = copy.deepcopy(teacher.config)
        config.num_hidden_layers, config.hidden_size, config.intermediate_size = 2, width, 4 * width
        return type(teacher)(config)

    soft = kd.KDLoss(temperature=2, alpha=0.9)
    starts = {"random": lambda: fresh(128), "half as wide": lambda: fresh(64),
              "teacher's blocks": lambda: kd.student_from(teacher, layers=[0, 2])}
    arms = {(start, objective): (build, kd.HardLabels() if objective == "labels" else soft)
            for start, build in starts.items() for objective in ("labels", "logits")}
    frame = []
    for sample in SAMPLES:
        rows = {k: encode(part) for k, part in kd.load_text("docstrings", seed=sample, sizes=(500, 300, 800)).items()}
        held = rows["validation"].select_columns(["input_ids", "attention_mask"])
        batch = collate([held[i] for i in range(len(held))])
        for (start, objective), (build, loss) in arms.items():
            for lr in RATES:
                torch.manual_seed(sample)
                taught = {"teacher": teacher if loss.needs_teacher else None, "objective": loss}
                student = kd.fit(build(), rows["train"], **taught,
                                 collator=collate, epochs=6, batch=32, lr=lr, seed=sample)
                with torch.no_grad():
                    right = student(**batch).logits.argmax(-1) == torch.tensor(rows["validation"]["labels"])
                frame.append({"start": start, "objective": objective, "lr": lr,
                              "accuracy": 100 * right.float().mean().item()})
        print(sample, flush=True)
    mean = pd.DataFrame(frame).groupby(["start", "objective", "lr"], as_index=False)["accuracy"].mean().round(1)
    mean["best"] = mean.groupby(["start", "objective"])["accuracy"].transform("max") == mean["accuracy"]
    mean.to_csv(RESULTS, index=False)
    print(mean.to_string(index=False))


if __name__ == "__main__":
    main()
