"""One student, trained in silence: `DistillationTrainer` with the settings that the lessons share."""

import contextlib
import gc
import io
import tempfile

from .lab import device, threads_for


def fit(student, data, *, teacher=None, objective=None, hidden=None, on_policy=None, collator=None, epochs=1, steps=-1,
        batch=8, lr=2e-3, seed=0):
    """Train a transformers model on data, in place, and give it back in eval mode.

    AdamW without weight decay, a tenth of the steps to warm up, then a cosine to 0, gradients clipped at norm 1. data:
    rows of a causal LM or a classifier, a list of dicts or a `datasets.Dataset`; epochs over it, or steps where above
    0. collator: makes a batch of rows, by default stacks them. seed: the order of the data and dropout. teacher,
    objective, hidden, on_policy: those of `DistillationTrainer`. Nothing is printed, logged or saved: for long runs,
    checkpoints and several processes use the Trainer itself.

    >>> from transformers import LlamaConfig, LlamaForCausalLM
    >>> model = LlamaForCausalLM(LlamaConfig(vocab_size=16, hidden_size=8, num_attention_heads=1, num_hidden_layers=1))
    >>> from kdlab.objectives import HardLabels
    >>> fit(model, [{"input_ids": [1, 5, 2], "labels": [1, 5, 2]}] * 8, objective=HardLabels(), steps=1).training
    False
    """
    from transformers import TrainingArguments
    from transformers.utils import logging

    from .trainer import DistillationTrainer

    said = logging.get_verbosity()
    logging.set_verbosity_error()
    gc.freeze()  # the Trainer searches the whole memory for garbage when it starts: what is there already is none
    try:
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()), \
                threads_for(student):
            arguments = TrainingArguments(
                folder, num_train_epochs=epochs, max_steps=steps, per_device_train_batch_size=batch, learning_rate=lr,
                lr_scheduler_type="cosine", warmup_steps=0.1, weight_decay=0.0, max_grad_norm=1.0, seed=seed,
                report_to="none", save_strategy="no", logging_strategy="no", disable_tqdm=True,
                use_cpu=device().type == "cpu", dataloader_pin_memory=False)
            DistillationTrainer(student, arguments, teacher=teacher, objective=objective, hidden=hidden,
                                on_policy=on_policy, train_dataset=data, data_collator=collator).train()
    finally:
        gc.unfreeze()
        logging.set_verbosity(said)
    return student.eval()
