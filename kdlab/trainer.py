"""transformers' Trainer with a teacher beside the student: language models token by token, classifiers row by row."""

import contextlib
import itertools
import os
import warnings

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import Trainer

from . import trainer_checks
from .divergences import check_logits
from .fused import FORMULAS, linear_divergence
from .generate import positions
from .objectives import KDLoss, SquaredError, check_labels, two_classes
from .rows import Collator, laid_out
from .tokens import TokenLoss, next_token
from .wrapped import compiled, evaluating, inside, takes

FUSED_FROM = 8192  # tokens: a smaller vocabulary's logits are computed in one go
PROJECTORS = "distillation"  # what hidden is called as the student's submodule, and as a checkpoint's file


class DistillationTrainer(Trainer):
    """`transformers.Trainer` whose loss comes from a teacher; everything else is Trainer's own.

        Σ objective(student, teacher, label) / N + Σ hidden(student, teacher) / M

    N: the tokens (of a classifier: sentences) that count in the whole optimiser step, M: the sequences that hold one;
    so accumulation, uneven batches and several processes change nothing. Evaluation: the mean of each batch. A label
    −100 does not count, nor does a text's first token: nothing stands before it, whichever side is padded. Rows without
    labels, or whose labels are all −100, count where the objective needs only the teacher (`needs_labels` is False, as
    for alpha=1): a text then on every token, a sentence whole.

    model: a causal LM (labels (B, L), the input ids, −100 where not learnt) or a classifier: of classes (labels (B,),
    or (B, L) for tokens), of several labels at once (labels (B, C) of 0 and 1; the objective's two-class form a label)
    or of numbers (labels (B,) or (B, K); `SquaredError`). Its trainable weights must be float32 or wider (autocast is
    `bf16=True` in args); half_precision=True trains half-precision weights as they are, whose small steps round away.
    teacher: an nn.Module with the student's vocabulary or classes, of any dtype; frozen, put into eval mode, moved to
    the device, never saved. None where nothing needs it, or each batch has `teacher_logits` (B, L, V) or (B, C). Both
    may be wrapped (LoRA, torch.compile, a module of one's own). objective: `TokenLoss()`, for classifiers `KDLoss()`,
    or another with `.rows`. hidden: a loss on hidden layers, as kdlab.relations.LayerMap; its projectors are trained
    along and kept in checkpoints, but no part of the saved student. on_policy: as kdlab.generate.OnPolicy, called as
    on_policy(model, batches, step) → the batches of one step to train on; drawn from a seed of its own, so that a run
    resumes exactly. fused: True, False or "auto", the loss straight from hidden states (kdlab.fused) from 8,192 tokens
    on; in evaluation only under prediction_loss_only. vocab_size: the tokens that exist, where one tokenizer's heads
    are padded to other widths (`same_tokenizer(…).vocab_size`); taken from processing_class where the widths differ.
    data_collator: by default `Collator`; on either side, padding changes no loss, and packed documents
    (`DataCollatorWithFlattening`) are read one by one. The log has "soft", "hard" (not fused) and "hidden", averaged
    like the loss. Several processes: `accelerate launch`, torchrun. Warns once where the tokenizer's end of text never
    counts. Raises ValueError or TypeError where the models share parameters, vocabularies differ, a text is longer
    than either model's positions, or something is missing. Source: Hinton et al. 2015.

    >>> import tempfile
    >>> from transformers import LlamaConfig, LlamaForCausalLM, TrainingArguments
    >>> sizes = dict(vocab_size=16, num_attention_heads=1, num_hidden_layers=1)
    >>> student, teacher = (LlamaForCausalLM(LlamaConfig(hidden_size=H, **sizes)) for H in (8, 16))
    >>> text = [{"input_ids": [1, 5, 2, 7], "labels": [1, 5, 2, 7]}, {"input_ids": [1, 3], "labels": [1, 3]}] * 2
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     args = TrainingArguments(folder, max_steps=2, report_to="none", disable_tqdm=True, use_cpu=True)
    ...     trainer = DistillationTrainer(student, args, teacher=teacher, train_dataset=text)
    ...     trainer.train().global_step
    {'train_runtime': ...}
    2
    """

    loss_is_scaled_for_ga = True  # by the items of the whole step: not once more by the number of its batches

    def __init__(self, model, args, *, teacher, objective=None, hidden=None, on_policy=None, fused="auto",
                 vocab_size=None, half_precision=False, **trainer_arguments):
        trainer_checks.check(model, args, teacher, hidden, on_policy, fused, half_precision, trainer_arguments)
        core = inside(model)
        self.causal = getattr(core, "can_generate", bool)()  # bool() is False
        numbers = not self.causal and trainer_checks.problem(core) == "regression"
        default = TokenLoss if self.causal else SquaredError if numbers else KDLoss
        self.objective = objective if objective is not None else default()
        trainer_checks.check_objective(self.objective, numbers)
        self.label = (args.label_names or ["labels"])[0]
        tokenizer = trainer_arguments.get("processing_class")
        if trainer_arguments.get("data_collator") is None:
            known = getattr(tokenizer, "pad_token_id", None)
            pad = known if known is not None else getattr(getattr(core, "config", None), "pad_token_id", None)
            trainer_arguments["data_collator"] = Collator(tokenizer, pad=pad, label=self.label)
        self.vocab_size = trainer_checks.vocabulary(model, teacher, vocab_size, tokenizer, self.objective)
        super().__init__(model=model, args=args, **trainer_arguments)
        self.label_names = [self.label]  # of a wrapper, Trainer can't read them
        self.teacher, self.hidden, self.on_policy = teacher, hidden, on_policy
        if teacher is not None:
            teacher.requires_grad_(False).eval().to(self.args.device)
        if hidden is not None:
            hidden.prepare(model, teacher)
            hidden.to(self.args.device)
        names = {"student": takes(model), "teacher": takes(model if teacher is None else teacher)}
        if None in names.values() and self.args.remove_unused_columns:
            raise ValueError("DistillationTrainer: args: argument must have remove_unused_columns=False for a model "
                             "whose forward names nothing that it takes (**kwargs), got True")
        self._takes = {side: found and found - {self.label, "labels"} for side, found in names.items()}
        rooms = [positions(m) for m in (model, teacher) if m is not None]
        self.room = min((n for n in rooms if n is not None), default=None)
        known = [trainer_checks.known_tokens(m) for m in (model, teacher) if m is not None]
        self.tokens = min((n for n in known if n is not None), default=None)
        if hasattr(on_policy, "positions"):
            on_policy.positions = self.room
            trainer_checks.check_room_to_write(on_policy, self.room)
        fits = not (self.is_deepspeed_enabled or self.is_fsdp_enabled or args.torch_compile or compiled(model)
                    or (teacher is not None and compiled(teacher)))
        fits = fits and _fusible(model, teacher, self.objective, self.vocab_size)
        if fused is True and not fits:
            raise ValueError("DistillationTrainer: fused: argument must be False or 'auto' but for two causal language "
                             "models, not compiled, whose logits are what nn.Linear heads answer, and a TokenLoss, "
                             "got True")
        self.fused = fits and (model.get_output_embeddings().out_features >= FUSED_FROM if fused == "auto" else fused)
        self._ends_seen = False

    def train(self, *args, **kwargs):
        """As Trainer's; hidden is a submodule of the student meanwhile, for the optimiser, clipping and DDP."""
        trainer_checks.check_texts(self.train_dataset, self.room, self.tokens)
        self._sums, self._steps = {}, 0  # of the log's terms
        self.counted = 0
        self.model.add_module(PROJECTORS, self.hidden)
        try:
            return super().train(*args, **kwargs)
        finally:
            self.model._modules.pop(PROJECTORS, None)

    def _set_signature_columns_if_needed(self):
        super()._set_signature_columns_if_needed()
        wanted = {*(self._takes["student"] or ()), *(self._takes["teacher"] or ()), "teacher_logits"}
        self._signature_columns += sorted(wanted - {*self._signature_columns})

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
        batches = [laid_out(b, self.label)[0] for b in itertools.islice(epoch_iterator, num_batches)]
        for batch in batches if not self._ends_seen else ():
            self._look_for_ends(batch)
        if self.on_policy is not None:
            batches = self.on_policy(self.model, batches, self.state.global_step)
        self._steps += 1
        items = self._get_num_items_in_batch(batches, device)
        self.counted = self.counted + items[0]  # fit refuses a training in which nothing did
        return batches, items

    def _look_for_ends(self, batch):
        """Warn, once, of a tokenizer's end of text that no label holds: the student would not learn to stop."""
        tokenizer = self.processing_class or getattr(self.data_collator, "tokenizer", None)
        end, labels = getattr(tokenizer, "eos_token_id", None), batch.get(self.label)
        if not self.causal or end is None or labels is None or labels.shape != batch["input_ids"].shape:
            return
        real = batch.get("attention_mask", torch.ones_like(labels)).bool()
        learnt, ends = real & (labels != -100), real & (batch["input_ids"] == end)
        prompts = (real & ~learnt)[:, 1:].any()
        if not (learnt & ends).any() and (ends.any() or prompts):
            self._ends_seen = True
            why = "its label is −100 wherever it stands" if ends.any() else "no text of the batch ends with it"
            warnings.warn(f"DistillationTrainer: train_dataset: the end of text {tokenizer.eos_token!r} never counts, "
                          f"{why}, so the student does not learn to stop; kdlab's Collator keeps the labels given, "
                          "also where the end of text is the padding token", stacklevel=2)

    def _get_num_items_in_batch(self, batch_samples, device):
        """[tokens or sentences that count, sequences that hold one], of all processes together."""
        counts = [counts.reshape(len(counts), -1) for _, counts in map(self._labels, batch_samples)]
        items = torch.tensor([[c.sum(), c.any(1).sum()] for c in counts] or [[0, 0]], device=device).sum(0)
        return self.accelerator.reduce(items, "sum") if self.args.average_tokens_across_devices else items

    def _labels(self, batch):
        """The labels of a batch, −100 (NaN) where there is none, and what counts: (B,), or (B, L) of tokens."""
        labels, needed = batch.get(self.label), getattr(self.objective, "needs_labels", True)
        if labels is None and needed:
            raise ValueError(f"DistillationTrainer: train_dataset: batches must hold {self.label} for an objective "
                             f"that needs them (with alpha=1 the teacher is enough), got {sorted(batch)}")
        if self.causal:
            return self._token_labels(batch, labels, needed)
        first = next(v for k, v in batch.items() if torch.is_tensor(v) and k != "teacher_logits")
        if isinstance(self.objective, SquaredError):
            labels = first.new_full(first.shape[:1], torch.nan, dtype=torch.float) if labels is None else labels
            labels = labels.float() if not labels.is_floating_point() else labels
            labels = labels.reshape(len(labels), -1)
            return labels, ~labels.isnan().any(1) if needed else torch.ones_like(labels[:, 0], dtype=torch.bool)
        if labels is None:
            labels = first.new_full(first.shape[:1], -100, dtype=torch.long)
        if labels.is_floating_point() and labels.ndim < 2:
            raise ValueError(f"DistillationTrainer: {self.label}: labels must be whole numbers for a head of classes, "
                             f"got {labels.dtype}; a head of numbers has config.problem_type='regression'")
        several = self._several(labels)
        if several and not ((labels == 0) | (labels == 1) | (labels == -100)).all():
            raise ValueError(f"DistillationTrainer: {self.label}: labels must be 0 or 1 (or −100: none) for a head of "
                             f"several labels, got {labels.min():g} to {labels.max():g}")
        labels = labels.long()
        known = (labels != -100).any(-1) if several else labels != -100
        if needed:
            return labels, known
        if several or labels.ndim == 1:
            return labels, torch.ones_like(known)
        real = batch.get("attention_mask", torch.ones_like(labels)).bool()
        return labels, known | (real & ~known.any(1, keepdim=True))

    def _several(self, labels):
        """True for a head of several labels at once, each yes or no, as transformers tells it from the labels."""
        told = trainer_checks.problem(inside(self.model))
        return told == "multi_label_classification" or (told is None and labels.is_floating_point())

    def _token_labels(self, batch, labels, needed):
        ids, mask = batch.get("input_ids"), batch.get("attention_mask")
        real = torch.ones_like(ids if labels is None else labels).bool()
        real = mask.bool() if mask is not None and mask.shape == real.shape else real
        if not needed and ids is not None:  # a text without labels: the teacher has something to say of every token
            labels = torch.full_like(ids, -100) if labels is None else labels
            labels = torch.where(real & (labels == -100).all(1, keepdim=True), ids, labels)
        # no token counts that nothing real stands before: the first, also behind padding on the left
        labels = labels.masked_fill(~F.pad(real[:, :-1], (1, 0)), -100)
        return labels, labels != -100

    def prediction_step(self, model, inputs, prediction_loss_only, ignore_keys=None):
        """As Trainer's; also of rows without labels, where the objective needs only the teacher."""
        if inputs.get(self.label) is not None or getattr(self.objective, "needs_labels", True):
            return super().prediction_step(model, inputs, prediction_loss_only, ignore_keys)
        inputs = self._prepare_inputs(inputs)
        with torch.no_grad():
            loss, found = self.compute_loss(model, inputs, return_outputs=True)
        return loss.detach(), None if prediction_loss_only else found.get("logits"), None

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """The sum over what counts in one batch, divided by the items of the whole step."""
        inputs, as_given = laid_out(inputs, self.label)
        trainer_checks.check_length(inputs, self.room)
        if (items := num_items_in_batch) is None:
            items = self._get_num_items_in_batch([inputs], self.args.device)
        (labels, counts), layers, given = self._labels(inputs), None, inputs.get("teacher_logits")
        taught = {"answer": given if self.objective.needs_teacher else None}
        fused = self.fused and taught["answer"] is None and (self.args.prediction_loss_only or not return_outputs)
        if self.hidden is not None or (self.objective.needs_teacher and taught["answer"] is None):
            if self.teacher is None:
                raise ValueError(
                    "DistillationTrainer: teacher: argument must be an nn.Module, or give teacher_logits "
                    f"in the data, for the objective {type(self.objective).__name__}; got None")
            with torch.no_grad(), self.accelerator.autocast():
                taught, layers = self._forward("teacher", self.teacher, inputs, fused)
        answer, _ = self._forward("student", model, inputs, fused, layers)
        terms = self._terms(answer["answer"], taught["answer"], labels, counts, fused)
        terms = {k: rows.sum() / items[0].clamp_min(1) for k, rows in terms.items()}
        if self.hidden is not None:
            rows = torch.where(counts.reshape(len(counts), -1).any(1), answer["hidden"], 0.0)
            terms["hidden"] = rows.sum() / items[1].clamp_min(1)
            terms["loss"] = terms["loss"] + terms["hidden"]
        if self.args.average_tokens_across_devices:  # every process has its share of one sum, but DDP averages
            terms = {k: v * self.accelerator.num_processes for k, v in terms.items()}
        if self.is_in_train and model.training:
            self._sums = {k: self._sums.get(k, 0) + v.detach() for k, v in terms.items() if k != "loss"}
        if not return_outputs:
            return terms["loss"]
        a_token_each = answer["answer"].shape[:2] == getattr(inputs.get("input_ids"), "shape", None)
        return terms["loss"], {} if fused else {
            "logits": as_given(answer["answer"]) if a_token_each else answer["answer"]}

    def _inputs(self, side, batch):
        """What a side's forward is called with, and the attention mask as its layers see it."""
        names, mask = self._takes[side], batch.get("attention_mask")
        left_out = {self.label, "labels", "teacher_logits"}
        inputs = {k: v for k, v in batch.items() if (k in names if names is not None else k not in left_out)}
        if names is not None and "use_cache" in names:
            inputs["use_cache"] = False  # nothing is written here, and what a cache holds would be lost
        return inputs, mask

    def _forward(self, side, model, batch, fused, teacher_layers=None):
        """One forward pass → {"answer": logits or, fused, what the head gets; "hidden": rows (B,)}, hidden layers."""
        module = self.model if side == "student" else model
        (inputs, mask), found, layers = self._inputs(side, batch), {}, {}

        def before_head(head, args):
            found["answer"] = args[0]
            return args[0][:, -1:]  # one position keeps the head in DDP's graph; (B, L, V) never arises

        def after(module, args, output):  # within DDP's forward, which so sees the projectors used
            if self.hidden is not None and side == "student":
                if torch.is_grad_enabled():
                    trainer_checks.check_gradients(module, layers)
                found["hidden"] = self.hidden(layers, teacher_layers, mask)
            return {"logits": _logits(output)} | found

        with contextlib.ExitStack() as stack:
            if self.hidden is not None:
                layers = stack.enter_context(self.hidden.collect(module, side))
            if fused:
                stack.callback(module.get_output_embeddings().register_forward_pre_hook(before_head).remove)
            if fused or self.hidden is not None:
                stack.callback(module.register_forward_hook(after).remove)
            output = model(**inputs)
            return {"answer": _logits(output)} | (output if fused or self.hidden is not None else {}), layers

    def _terms(self, student, teacher, labels, counts, fused):
        """The objective's terms, {"loss", "soft", …}, of the rows that count."""
        heads = [inside(m).get_output_embeddings() for m in (self.model, self.teacher)] if fused else []
        teacher = student.detach() if teacher is None else teacher
        if self.vocab_size is not None and not fused:
            student, teacher = student[..., :self.vocab_size], teacher[..., :self.vocab_size]
        V = self.vocab_size or (heads[0].out_features if heads else student.shape[-1])
        self._check_shapes(student, teacher, counts, fused)
        several = not self.causal and labels.shape == student.shape and not isinstance(self.objective, SquaredError)
        if several:
            student, teacher = two_classes(student), two_classes(teacher)
        elif not isinstance(self.objective, SquaredError):
            check_labels("DistillationTrainer", labels, student.shape[:-1], V)
        if self.causal:
            teacher = next_token(teacher, labels)[0]
            (student, labels), counts = next_token(student, labels), counts[:, 1:]
        student, teacher, labels = (x[counts] for x in (student, teacher, labels))
        if fused:
            with self.accelerator.autocast():
                return {"loss": linear_divergence(student, heads[0], teacher, heads[1], labels, self.objective,
                                                  reduction="sum", vocab_size=self.vocab_size)}
        if isinstance(self.objective, TokenLoss):  # whose divergence looks at the logits itself
            labels = labels if self.objective.needs_labels else labels.clamp_min(0)  # −100 would not count there
        elif getattr(self.objective, "one_vocabulary", False) and not isinstance(self.objective, SquaredError):
            student, teacher = check_logits("DistillationTrainer", student, teacher)
        terms = self.objective.rows(student, teacher, labels)
        return {k: rows.mean(-1) for k, rows in terms.items()} if several else terms

    def _check_shapes(self, student, teacher, counts, fused):
        if student.shape[:-1] != counts.shape:
            raise ValueError(f"DistillationTrainer: {self.label}: labels must be one a row of the student's answers "
                             f"{tuple(student.shape)}, got {tuple(counts.shape)}")
        ours = getattr(self.objective, "one_vocabulary", False)  # another may bring two vocabularies together
        if teacher.shape[:-1] != student.shape[:-1] or (ours and not fused and teacher.shape != student.shape):
            raise ValueError(f"DistillationTrainer: teacher: logits must be {tuple(student.shape)}, got "
                             f"{tuple(teacher.shape)}; where heads of one tokenizer are padded to other widths give "
                             "vocab_size, for other tokenizers see kdlab.vocabulary.uld (an objective that brings two "
                             "vocabularies together says one_vocabulary = False)")


def _logits(output):
    """What a model answers: a tensor, or the logits in a dictionary or in the first place of a tuple."""
    if torch.is_tensor(output):
        return output
    if hasattr(output, "keys") and "logits" in output:
        return output["logits"]
    if isinstance(output, (tuple, list)) and output and torch.is_tensor(output[0]):
        return output[0]
    came = sorted(output) if hasattr(output, "keys") else type(output).__name__
    raise ValueError(f"DistillationTrainer: model: argument must answer a tensor of logits, or 'logits', got {came}")


def _fusible(student, teacher, objective, vocab_size):
    """True where the loss is a TokenLoss of kdlab's divergences on what two plain heads answer to hidden states."""
    models = [m for m in (student, teacher) if getattr(m, "can_generate", bool)()]
    heads = [m.get_output_embeddings() for m in models]
    fits = type(objective) is TokenLoss and objective.divergence in FORMULAS and len(models) == 2 \
        and all(type(head) is nn.Linear for head in heads) \
        and (vocab_size is not None or heads[0].out_features == heads[1].out_features)
    for model, head in zip(models, heads, strict=True) if fits else ():
        found = []
        hook = head.register_forward_hook(lambda *call, to=found: to.append(call[-1]))
        try:
            with evaluating(model):
                logits = model(input_ids=torch.arange(2, device=head.weight.device)[None]).logits
        finally:
            hook.remove()
        fits = fits and torch.equal(found[0].to(logits.dtype), logits)  # no soft cap, no scale
    return fits
