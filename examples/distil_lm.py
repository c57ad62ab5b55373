"""Distil a language model into a smaller one that shares its tokenizer.

    python examples/distil_lm.py --student docs_base --teacher_model_name_or_path docs_lm \\
        --texts web --output_dir build/web --max_steps 100 --learning_rate 2e-3

Both are names of data/teachers, directories or hub ids, such as HuggingFaceTB/SmolLM2-135M and
-360M. --help lists the rest: the loss (--divergence, --alpha, --temperature), on-policy batches,
and all of TrainingArguments. On several GPUs or nodes: accelerate launch with a file of
examples/launch, which has plain data parallel, FSDP and Slurm.
"""

from dataclasses import dataclass, field

import torch
from transformers import HfArgumentParser

import kdlab as kd


@dataclass
class Script:
    """What this script adds to `kd.DistillationConfig`."""

    student: str = field(metadata={"help": "The model that learns: a directory or a hub id."})
    texts: str = field(
        default="docstrings",
        metadata={
            "help": "Texts without labels: docstrings, a field of them, directory or hub id."
        },
    )
    column: str | None = field(default=None, metadata={"help": "The set's column of texts."})
    length: int = field(default=128, metadata={"help": "Longer texts are cut to so many tokens."})


def main(line=None):
    """Train as the command line says; returns the trainer, its model saved."""
    parser = HfArgumentParser((Script, kd.DistillationConfig))
    script, config = parser.parse_args_into_dataclasses(line)
    config.eval_on_start = True  # and not before train, which is what shards the student (FSDP)
    student, tokenizer = kd.language_model(script.student, dtype=torch.float32)

    def tokens(texts):
        cut = tokenizer(list(texts), truncation=True, max_length=script.length)["input_ids"]
        return [{"input_ids": ids, "labels": ids} for ids in cut if len(ids) > 1]

    texts = kd.plain_text(script.texts, text=script.column)
    trainer = kd.DistillationTrainer(
        student,
        config,  # names the teacher and describes the loss
        train_dataset=tokens(texts["train"]),
        eval_dataset=tokens(texts["test"]),
        processing_class=tokenizer,
    )
    trainer.train(resume_from_checkpoint=config.resume_from_checkpoint)
    trainer.evaluate()
    trainer.save_model()
    if trainer.is_world_process_zero():
        found = [x["eval_perplexity"] for x in trainer.state.log_history if "eval_loss" in x]
        print(f"perplexity {found[0]:.1f} → {found[-1]:.1f}")
    return trainer


if __name__ == "__main__":
    main()
