"""Distil a text classifier into one with a share of its blocks.

    python examples/distil_classifier.py --teacher_model_name_or_path docs_bert \\
        --data docstrings --every 2 --output_dir build/half --num_train_epochs 4 \\
        --learning_rate 4e-4 --temperature 2

The student starts from every second block of the teacher (DistilBERT's start). The teacher is a
name of data/teachers, a directory or a hub id of a sequence classifier, such as
textattack/bert-base-uncased-SST-2 with --data stanfordnlp/sst2.
"""

from dataclasses import dataclass, field

import numpy as np
from transformers import HfArgumentParser

import kdlab as kd


@dataclass
class Script:
    """What this script adds to `kd.DistillationConfig`."""

    data: str = field(
        default="docstrings", metadata={"help": "Labelled texts: docstrings, directory or hub id."}
    )
    every: int = field(default=2, metadata={"help": "Which blocks stay: each second, third, …"})
    train: int = field(default=1000, metadata={"help": "How many texts to learn from."})
    length: int = field(default=128, metadata={"help": "Longer texts are cut to so many tokens."})


def main(line=None):
    """Train as the command line says; returns the trainer, its model saved."""
    parser = HfArgumentParser((Script, kd.DistillationConfig))
    script, config = parser.parse_args_into_dataclasses(line)
    teacher, tokenizer = kd.text_classifier(config.teacher_model_name_or_path)
    student = kd.student_from(teacher, every=script.every).float()

    def tokens(rows):
        return tokenizer(rows["text"], truncation=True, max_length=script.length)

    data = kd.load_text(script.data, sizes=(script.train, 300, 800)).map(tokens, batched=True)
    trainer = kd.DistillationTrainer(
        student,
        config,  # describes the loss
        teacher=teacher,
        train_dataset=data["train"].rename_column("label", "labels"),
        eval_dataset=data["validation"].rename_column("label", "labels"),
        processing_class=tokenizer,
        compute_metrics=lambda told: {
            "accuracy": float(np.mean(told.predictions.argmax(-1) == told.label_ids))
        },
    )
    before = trainer.evaluate()
    trainer.train(resume_from_checkpoint=config.resume_from_checkpoint)
    after = trainer.evaluate()
    trainer.save_model()
    sizes = " of ".join(f"{kd.parameters(m):,}" for m in (student, teacher))
    print(f"accuracy {before['eval_accuracy']:.1%} → {after['eval_accuracy']:.1%}, {sizes} weights")
    return trainer


if __name__ == "__main__":
    main()
