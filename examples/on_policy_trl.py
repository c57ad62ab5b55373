"""Distil on what the student itself writes, with TRL: on-policy, at the size of production.

    pip install 'kdlab[onpolicy]'
    python examples/on_policy_trl.py --student docs_base --teacher_model_name_or_path docs_lm \\
        --texts web --output_dir build/own --max_steps 100 --learning_rate 2e-3 \\
        --max_completion_length 32 --per_device_train_batch_size 16

The models are named as in distil_lm.py. TRL's DistillationTrainer lets the student go on from the
beginnings of the texts and moves it towards the teacher on every token it wrote: by reverse KL
(--beta 1, the default), forward KL (--beta 0) or the JSD between. --help lists the rest, all of
trl.DistillationConfig; on a machine without a GPU add --use_cpu --bf16 False. The writing is what
takes the time. With vLLM installed (pip install 'trl[vllm]') one argument more, --use_vllm, lets it
write, on the same GPUs or on a server's (--vllm_mode). TRL's older GKDTrainer, which mixes in the
texts of the data, has no such argument; for two tokenizers its GOLDTrainer has. Several processes:
accelerate launch --config_file examples/launch/two_processes.yaml examples/on_policy_trl.py …

What kdlab adds is the measuring, before and after: the student's perplexity on texts that nobody
trained on, and the teacher's nats a token of what the student writes.
"""

import math
from dataclasses import dataclass, field

import torch
from datasets import Dataset
from transformers import HfArgumentParser
from trl import DistillationConfig, DistillationTrainer

import kdlab as kd


@dataclass
class Script:
    """What this script adds to `trl.DistillationConfig`."""

    student: str = field(metadata={"help": "The model that learns: a directory or a hub id."})
    texts: str = field(
        default="docstrings",
        metadata={
            "help": "Texts without labels: docstrings, a field of them, directory or hub id."
        },
    )
    column: str | None = field(default=None, metadata={"help": "The set's column of texts."})
    prompt: int = field(
        default=16, metadata={"help": "Tokens of a text that the student is given."}
    )
    length: int = field(default=128, metadata={"help": "Unread texts are cut to so many tokens."})
    measured: int = field(default=256, metadata={"help": "Unread texts to measure on."})


def main(line=None):
    """Train as the command line says; returns the trainer and {measure: [before, after]}."""
    parser = HfArgumentParser((Script, DistillationConfig))
    script, config = parser.parse_args_into_dataclasses(line)
    if config.teacher_model_name_or_path is None:
        parser.error("name the teacher: --teacher_model_name_or_path")
    student, tokenizer = kd.language_model(script.student, dtype=torch.float32)
    teacher, _ = kd.language_model(config.teacher_model_name_or_path)
    texts = kd.plain_text(script.texts, text=script.column)

    def tokens(texts, length):
        """Ids of the texts that go on beyond their beginning, cut to length."""
        cut = tokenizer(list(texts), truncation=True, max_length=length)["input_ids"]
        return [ids for ids in cut if len(ids) > script.prompt]

    unread = tokens(texts["test"], script.length)[: script.measured]
    unread = {"input_ids": unread, "labels": unread}
    begun = [ids[: script.prompt] for ids in unread["input_ids"]]

    def measure():
        own = kd.completions(student, begun, config.max_completion_length)
        return kd.perplexity(student, unread), math.log(kd.perplexity(teacher, own))

    prompts = [ids[: script.prompt] for ids in tokens(texts["train"], script.prompt + 1)]
    trainer = DistillationTrainer(
        student,
        teacher,
        config,
        train_dataset=Dataset.from_dict({"prompt": tokenizer.batch_decode(prompts)}),
        processing_class=tokenizer,
    )
    before = measure()
    trainer.train(resume_from_checkpoint=config.resume_from_checkpoint)
    after = measure()
    trainer.save_model()
    names = "perplexity on unread texts", "the teacher's nats a token of the student's own"
    found = dict(zip(names, zip(before, after, strict=True), strict=True))
    if trainer.is_world_process_zero():
        for name, (first, last) in found.items():
            print(f"{name} {first:.2f} → {last:.2f}")
    return trainer, found


if __name__ == "__main__":
    main()
