"""transformers' Trainer with a teacher beside the student: language models token by token, classifiers row by row."""

import contextlib
import inspect
import itertools
import os

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import Trainer

from .divergences import check_logits
from .fused import FORMULAS, linear_divergence
from .objectives import KDLoss, check_labels
from .tokens import TokenLoss, next_token

FUSED_FROM = 8192  # tokens: a smaller vocabulary's logits are computed in one go
PROJECTORS = "distillation"  # what hidden is called as the student's submodule, and as a checkpoint's file


class DistillationTrainer(Trainer):
    """`transformers.Trainer` whose loss comes from a teacher; everything else is Trainer's own.

        Σ objective(student, teacher, label) / N + Σ hidden(student, teacher) / M

    N: the tokens (of a classifier: sentences) that count in the whole optimiser step, M: the sequences that hold one;
    so accumulation, uneven batches and several processes change nothing. Evaluation: the mean of each batch. A label
    −100 does not count, nor does a text's first token: nothing stands before it, whichever side is padded.

    model: a causal LM (labels (B, L), the input ids, −100 where not learnt) or a classifier (labels (B,)). teacher: an
    nn.Module with the student's vocabulary or classes; frozen, put into eval mode, moved to the device, never saved.
    None where nothing needs it, or each batch has `teacher_logits` (B, L, V) or (B, C). objective: `TokenLoss()`, for
    classifiers `KDLoss()`, or another with `.rows`. hidden: a loss on hidden layers, as kdlab.relations.LayerMap; its
    projectors are trained along and kept in checkpoints, but no part of the saved student. on_policy: as
    kdlab.generate.OnPolicy, called as on_policy(model, batches, step) → the batches of one step to train on; drawn
    from a seed of its own, so that a run resumes exactly. fused: True, False or "auto", the loss straight from hidden
    states (kdlab.fused) from 8,192 tokens on; in evaluation only under prediction_loss_only.
    Pad with `DataCollatorForLanguageModeling(tokenizer, mlm=False)`, which makes the labels too, or
    `DataCollatorWithPadding(tokenizer)`; on either side, padding changes no loss. The log has "soft", "hard" (not
    fused) and "hidden", averaged like the loss. Several processes: `accelerate launch`, torchrun. Raises ValueError
    where the models share parameters, vocabularies differ, or something is missing. Source: Hinton et al. 2015.

    >>> import tempfile
    >>> from transformers import LlamaConfig, LlamaForCausalLM, TrainingArguments
    >>> sizes = dict(vocab_size=16, num_attention_heads=1, num_hidden_layers=1)
    >>> student, teacher = (LlamaForCausalLM(LlamaConfig(hidden_size=H, **sizes)) for H in (8, 16))
    >>> text = [{"input_ids": [1, 5, 2, 7], "labels": [1, 5, 2, 7]}] * 4
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     args = TrainingArguments(folder, max_steps=2, report_to="none", disable_tqdm=True, use_cpu=True)
    ...     trainer = DistillationTrainer(student, args, teacher=teacher, train_dataset=text)
    ...     trainer.train().global_step
    {'train_runtime': ...}
    2
    """

    loss_is_scaled_for_ga = True  # by the items of the whole step: not once more by the number of its batches

    def __init__(self, model, args, *, teacher, objective=None, hidden=None, on_policy=None, fused="auto",
                 **trainer_arguments):
        _check(model, args, teacher, hidden, fused, trainer_arguments)
        super().__init__(model=model, args=args, **trainer_arguments)
        self.causal = getattr(model, "can_generate", bool)()  # bool() is False
        self.objective = objective if objective is not None else TokenLoss() if self.causal else KDLoss()
        self.teacher, self.hidden, self.on_policy = teacher, hidden, on_policy
        if teacher is not None:
            teacher.requires_grad_(False).eval().to(self.args.device)
        if hidden is not None:
            hidden.prepare(model, teacher)
            hidden.to(self.args.device)
        self._takes = {side: set(inspect.signature(m.forward).parameters) - {"labels"}
                       for side, m in (("student", model), ("teacher", model if teacher is None else teacher))}
        fits = not (self.is_deepspeed_enabled or self.is_fsdp_enabled) and _fusible(model, teacher, self.objective)
        if fused is True and not fits:
            raise ValueError("DistillationTrainer: fused: argument must be False or 'auto' but for two causal language "
                             "models whose logits are what nn.Linear heads answer, and a TokenLoss, got True")
        self.fused = fits and (model.get_output_embeddings().out_features >= FUSED_FROM if fused == "auto" else fused)

    def train(self, *args, **kwargs):
        """As Trainer's; hidden is a submodule of the student meanwhile, for the optimiser, clipping and DDP."""
        self._sums, self._steps = {}, 0  # of the log's terms
        self.model.add_module(PROJECTORS, self.hidden)
        try:
            return super().train(*args, **kwargs)
        finally:
            self.model._modules.pop(PROJECTORS, None)

    def _set_signature_columns_if_needed(self):
        super()._set_signature_columns_if_needed()
        self._signature_columns += sorted({*self._takes["teacher"], "teacher_logits"} - {*self._signature_columns})

    def _save(self, output_dir=None, state_dict=None):
        weights = self.model.state_dict() if state_dict is None else state_dict
        super()._save(output_dir, {k: v for k, v in weights.items() if not k.startswith(PROJECTORS + ".")})

    def _save_optimizer_and_scheduler(self, output_dir):
        super()._save_optimizer_and_scheduler(output_dir)
        if self.hidden is not None and self.args.should_save:
            save_file(self.hidden.state_dict(), os.path.join(output_dir, PROJECTORS + ".safetensors"))

    def _load_from_checkpoint(self, resume_from_checkpoint, model=None):
        self.model._modules[PROJECTORS] = None
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        self.model._modules[PROJECTORS] = self.hidden
        if self.hidden is not None:
            self.hidden.load_state_dict(load_file(os.path.join(resume_from_checkpoint, PROJECTORS + ".safetensors")))

    def log(self, logs, *args, **kwargs):
        """As Trainer's; beside the loss stand its terms."""
        if "loss" in logs:
            logs |= {k: self.accelerator.reduce(v / self._steps, "mean").item() for k, v in self._sums.items()}
            self._sums, self._steps = {}, 0
        super().log(logs, *args, **kwargs)

    def get_batch_samples(self, epoch_iterator, num_batches, device):
        """The batches of one optimiser step, some replaced by on_policy, and how much counts in them."""
        batches = list(itertools.islice(epoch_iterator, num_batches))
        if self.on_policy is not None:
            batches = self.on_policy(self.model, batches, self.state.global_step)
        self._steps += 1
        return batches, self._get_num_items_in_batch(batches, device)

    def _get_num_items_in_batch(self, batch_samples, device):
        """[tokens or sentences that count, sequences that hold one], of all processes together."""
        counts = [(y != -100).reshape(len(y), -1) for y in map(self._labels, batch_samples)]
        items = torch.tensor([[c.sum(), c.any(1).sum()] for c in counts] or [[0, 0]], device=device).sum(0)
        return self.accelerator.reduce(items, "sum") if self.args.average_tokens_across_devices else items

    def _labels(self, batch):
        """The labels of a batch, −100 where one does not count."""
        labels, mask = batch.get("labels"), batch.get("attention_mask")
        if labels is None:
            raise ValueError(f"DistillationTrainer: train_dataset: batches must hold labels, got {sorted(batch)}")
        if self.causal:  # no token counts that nothing real stands before: the first, also behind padding on the left
            real = mask if mask is not None and mask.shape == labels.shape else torch.ones_like(labels)
            labels = labels.masked_fill(F.pad(real[:, :-1], (1, 0)) == 0, -100)
        return labels

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """The sum over what counts in one batch, divided by the items of the whole step."""
        if (items := num_items_in_batch) is None:
            items = self._get_num_items_in_batch([inputs], self.args.device)
        labels, layers, given = self._labels(inputs), None, inputs.get("teacher_logits")
        taught = {"answer": given if self.objective.needs_teacher else None}
        fused = self.fused and taught["answer"] is None and (self.args.prediction_loss_only or not return_outputs)
        if self.hidden is not None or (self.objective.needs_teacher and taught["answer"] is None):
            if self.teacher is None:
                raise ValueError("DistillationTrainer: teacher: argument must be an nn.Module, or give teacher_logits")
            with torch.no_grad(), self.accelerator.autocast():
                taught, layers = self._forward("teacher", self.teacher, inputs, fused)
        answer, _ = self._forward("student", model, inputs, fused, layers)
        terms = self._terms(answer["answer"], taught["answer"], labels, fused)
        terms = {k: rows.sum() / items[0].clamp_min(1) for k, rows in terms.items()}
        if self.hidden is not None:
            rows = torch.where((labels != -100).reshape(len(labels), -1).any(1), answer["hidden"], 0.0)
            terms["hidden"] = rows.sum() / items[1].clamp_min(1)
            terms["loss"] = terms["loss"] + terms["hidden"]
        if self.args.average_tokens_across_devices:  # every process has its share of one sum, but DDP averages
            terms = {k: v * self.accelerator.num_processes for k, v in terms.items()}
        if self.is_in_train and model.training:
            self._sums = {k: self._sums.get(k, 0) + v.detach() for k, v in terms.items() if k != "loss"}
        return (terms["loss"], {} if fused else {"logits": answer["answer"]}) if return_outputs else terms["loss"]

    def _forward(self, side, model, batch, fused, teacher_layers=None):
        """One forward pass → {"answer": logits or, fused, what the head gets; "hidden": rows (B,)}, hidden layers."""
        module, mask = self.model if side == "student" else model, batch.get("attention_mask")
        inputs, found, layers = {k: v for k, v in batch.items() if k in self._takes[side]}, {}, {}
        if mask is not None and mask.ndim == 2 and not mask[:, 0].all():  # padding on the left
            if batch["labels"].ndim == 1:  # a classifier may look at the first place: the padding goes to the right
                order = mask.argsort(dim=1, descending=True, stable=True)
                inputs = {k: v.gather(1, order) if v.shape == mask.shape else v for k, v in inputs.items()}
                mask = mask.gather(1, order)
            elif "position_ids" in self._takes[side] - set(inputs):
                inputs["position_ids"] = (mask.cumsum(-1) - 1).clamp_min(0)

        def before_head(head, args):
            found["answer"] = args[0]
            return args[0][:, -1:]  # one position keeps the head in DDP's graph; (B, L, V) never arises

        def after(module, args, output):  # within DDP's forward, which so sees the projectors used
            logits = output if torch.is_tensor(output) else output["logits"]
            if self.hidden is not None and side == "student":
                found["hidden"] = self.hidden(layers, teacher_layers, mask)
            return {"answer": logits, "logits": logits} | found

        with contextlib.ExitStack() as stack:
            if self.hidden is not None:
                layers = stack.enter_context(self.hidden.collect(module, side))
            if fused:
                stack.callback(module.get_output_embeddings().register_forward_pre_hook(before_head).remove)
            stack.callback(module.register_forward_hook(after).remove)
            return model(**inputs), layers

    def _terms(self, student, teacher, labels, fused):
        """The objective's terms, {"loss", "soft", …}, of the rows that count."""
        heads = [m.get_output_embeddings() for m in (self.model, self.teacher)] if fused else []
        V = heads[0].out_features if heads else student.shape[-1]
        check_labels("DistillationTrainer", labels, student.shape[:-1], V)
        teacher = student.detach() if teacher is None else teacher
        ours = type(self.objective).__module__.startswith("kdlab.")  # another may bring two vocabularies together
        if teacher.shape[:-1] != student.shape[:-1] or (ours and not fused and teacher.shape != student.shape):
            raise ValueError(f"DistillationTrainer: teacher: logits must be {tuple(student.shape)}, got "
                             f"{tuple(teacher.shape)}; for padding write an objective whose rows call kdlab.vocabulary."
                             "mask_padding, for other tokenizers see kdlab.vocabulary.uld")
        if self.causal:
            teacher, (student, labels) = next_token(teacher, labels)[0], next_token(student, labels)
        student, teacher, labels = (x[labels != -100] for x in (student, teacher, labels))
        if fused:
            with self.accelerator.autocast():
                return {"loss": linear_divergence(student, heads[0], teacher, heads[1], labels, self.objective,
                                                  reduction="sum")}
        if ours and not isinstance(self.objective, TokenLoss):  # whose divergence looks at the logits itself
            student, teacher = check_logits("DistillationTrainer", student, teacher)
        return self.objective.rows(student, teacher, labels)


def _check(model, args, teacher, hidden, fused, others):
    """The errors that need no data."""
    own, theirs = ({p.data_ptr() for p in getattr(m, "parameters", list)()} for m in (model, teacher))
    two_towers = getattr(getattr(model, "config", None), "is_encoder_decoder", False)
    names = ("model_init", "compute_loss_func", "label_smoothing_factor")
    refused = [k for k in names if k in others or getattr(args, k, 0)]
    for right, name, expected, got in [
            (not two_towers, "model", "a causal language model or a classifier", "an encoder with a decoder"),
            (isinstance(teacher, nn.Module) or teacher is hidden is None, "teacher",
             "an nn.Module, or None without hidden", type(teacher).__name__),
            (not own & theirs - {0}, "teacher", "another model than the student", "one that shares its parameters"),
            (fused in (True, False, "auto"), "fused", "True, False or 'auto'", repr(fused)),
            (not refused, "trainer_arguments", "Trainer's without what model and objective replace", refused),
            (getattr(args, "n_gpu", 1) <= 1, "args", "for one GPU a process (accelerate launch)", "several GPUs")]:
        if not right:
            raise ValueError(f"DistillationTrainer: {name}: argument must be {expected}, got {got}")


@torch.no_grad()
def _fusible(student, teacher, objective):
    """True where the loss is a TokenLoss of kdlab's divergences on what two plain heads answer to hidden states."""
    models = [m for m in (student, teacher) if getattr(m, "can_generate", bool)()]
    heads = [m.get_output_embeddings() for m in models]
    fits = type(objective) is TokenLoss and objective.divergence in FORMULAS and len(models) == 2 \
        and all(type(head) is nn.Linear for head in heads) and heads[0].out_features == heads[1].out_features
    for model, head in zip(models, heads, strict=True) if fits else ():
        found, training = [], model.training
        hook = head.register_forward_hook(lambda *call, to=found: to.append(call[-1]))
        logits = model.eval()(torch.arange(2, device=head.weight.device)[None]).logits
        model.train(training)
        hook.remove()
        fits = fits and torch.equal(found[0].to(logits.dtype), logits)  # no soft cap, no scale
    return fits
