"""transformers' Trainer with a teacher: language models by tokens, classifiers by rows."""

import itertools
import math
import os
import warnings
from collections.abc import Callable
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F
from transformers import Trainer

from kdlab.base.wrapped import compiled, inside, takes
from kdlab.data.rows import Collator, laid_out
from kdlab.losses.divergences import check_logits
from kdlab.losses.fused import fused_terms, known_divergence
from kdlab.losses.kd import (
    SquaredError,
    TokenLoss,
    check_labels,
    cross_entropy_rows,
    next_token,
    two_classes,
)
from kdlab.losses.protocol import Objective
from kdlab.students.limits import positions
from kdlab.students.pretrained import load_pretrained
from kdlab.teachers.signals_taught import SignalCollator
from kdlab.training import trainer_checks as checks
from kdlab.training.config import (
    FUSED,
    OF_THE_LOSS,
    DistillationConfig,
    described_objective,
)
from kdlab.training.generate import Draws, OnPolicy
from kdlab.training.sides import Side, fusible, place
from kdlab.training.targets import Targets

FUSED_FROM = 8192  # tokens: a smaller vocabulary's logits are computed in one go
PROJECTORS = "distillation"  # what hidden is called as a submodule, and as a checkpoint's file
TERMS = ("soft", "hard", "hidden")  # beside the loss in every log, NaN where not computed


class DistillationTrainer(Trainer):
    """`transformers.Trainer` whose loss comes from a teacher; everything else is Trainer's own.

        Σ objective(student, teacher, label) / N + Σ hidden(student, teacher) / M

    N: the tokens (of a classifier: sentences) that count in the whole optimiser step, M: the
    sequences that hold one; so accumulation, uneven batches and several processes change nothing.
    In evaluation N and M are those of the whole set. A label −100 does not count, nor does a text's
    first token: nothing stands before it, whichever side is padded. Rows without labels, or whose
    labels are all −100, count where the objective needs only the teacher (`needs_labels` is False,
    as for alpha=1): a text then on every token, a sentence whole.

    model: a causal LM (labels (B, L), the input ids, −100 where not learnt) or a classifier: of
    classes (labels (B,), or (B, L) for tokens), of several labels at once (labels (B, C) of 0 and
    1; the objective's two-class form a label) or of numbers (labels (B,) or (B, K);
    `SquaredError`). Its trainable weights must be float32 or wider (autocast is `bf16=True` in
    args); half_precision=True trains half-precision weights as they are, whose small steps round
    away.

    args: a `DistillationConfig`, or TrainingArguments; what is given here goes before what it says.
    teacher: an nn.Module with the student's vocabulary or classes, of any dtype, or its name
    (directory or hub id; teacher_init: what from_pretrained takes); frozen, put into eval mode,
    never saved, and moved to the device unless it is placed already (device_map, quantised). None
    where nothing needs it, or each batch has `teacher_logits` (B, L, V) or (B, C), or signals kept
    on disk: data_collator a `SignalCollator`, objective a `TopKLoss`. Student and
    teacher may be wrapped (LoRA, torch.compile, a module of one's own). objective: `TokenLoss()`,
    for classifiers `KDLoss()`, or another `Objective`. hidden: a loss on hidden layers, as
    kdlab.LayerMap; its projectors are trained along and kept in checkpoints, but no part of the
    saved student. on_policy: as kdlab.OnPolicy, called as on_policy(model, batches, step) → the
    batches of one step to train on; drawn from a seed of its own, so that a run resumes exactly.
    fused: True, False or "auto", the loss straight from hidden states (kdlab.losses.fused) from
    8,192 tokens on; in evaluation only under prediction_loss_only. vocab_size: the tokens that
    exist, where one tokenizer's heads are padded to other widths
    (`same_tokenizer(…).vocab_size`); taken from processing_class where the widths differ.
    data_collator: by default `Collator`; on either side, padding changes no loss, and packed
    documents (`DataCollatorWithFlattening`) are read one by one.

    The log has "soft", "hard" and "hidden" beside the loss, averaged like it over the logging
    steps, and NaN where they are not computed; so has the evaluation, with the perplexity of a
    language model. Several processes: `accelerate launch`, torchrun. FSDP shards the student, when
    training begins (eval_on_start evaluates before); the teacher stays whole. Warns once where the
    tokenizer's end of text never counts. Raises ValueError or TypeError where the models share
    parameters, vocabularies differ, a text is longer than either model's positions, or something is
    missing. Source: Hinton et al. 2015.

    >>> import tempfile
    >>> from transformers import LlamaConfig, LlamaForCausalLM
    >>> sizes = dict(vocab_size=16, num_attention_heads=1, num_hidden_layers=1)
    >>> student, teacher = (LlamaForCausalLM(LlamaConfig(hidden_size=H, **sizes)) for H in (8, 16))
    >>> text = [{"input_ids": ids, "labels": ids} for ids in ([1, 5, 2, 7], [1, 3])] * 2
    >>> quiet = dict(report_to="none", disable_tqdm=True, use_cpu=True)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     args = DistillationConfig(folder, max_steps=2, **quiet)
    ...     trainer = DistillationTrainer(student, args, teacher=teacher, train_dataset=text)
    ...     trainer.train().global_step
    {'train_runtime': ...}
    2
    """

    # by the items of the whole step: not once more by the number of its batches
    loss_is_scaled_for_ga = True

    def __init__(
        self,
        model: nn.Module,
        args: Any = None,
        *,
        teacher: nn.Module | str | os.PathLike | None = None,
        teacher_init: dict[str, Any] | None = None,
        objective: Objective | None = None,
        hidden: nn.Module | None = None,
        on_policy: Callable | None = None,
        fused: bool | str | None = None,
        vocab_size: int | None = None,
        half_precision: bool | None = None,
        **trainer_arguments: Any,
    ) -> None:
        args = DistillationConfig() if args is None else args
        # the class holds the defaults
        config = args if isinstance(args, DistillationConfig) else DistillationConfig
        # what is given here goes before what args say
        fused = FUSED[config.fused] if fused is None else fused
        vocab_size = config.vocab_size if vocab_size is None else vocab_size
        half_precision = config.half_precision if half_precision is None else half_precision
        if on_policy is None and config.on_policy_share:
            on_policy = OnPolicy(config.on_policy_share, max_new_tokens=config.max_new_tokens)
        teacher = self._teacher(model, teacher, teacher_init, config)
        checks.check(
            model, args, teacher, hidden, on_policy, fused, half_precision, trainer_arguments
        )
        core = inside(model)
        self.causal = getattr(core, "can_generate", bool)()  # bool() is False
        self.objective: Objective = self._objective(core, objective, config)
        self.label = (args.label_names or ["labels"])[0]
        tokenizer = trainer_arguments.get("processing_class")
        if trainer_arguments.get("data_collator") is None:
            trainer_arguments["data_collator"] = self._collator(core, tokenizer)
        checks.check_signals(self.objective, trainer_arguments["data_collator"], on_policy)
        self.vocab_size = checks.vocabulary(model, teacher, vocab_size, tokenizer, self.objective)
        super().__init__(model=model, args=args, **trainer_arguments)
        checks.check_sharding(self.accelerator)
        self.label_names = [self.label]  # of a wrapper, Trainer can't read them
        self.targets = Targets(self.label, self.objective, self.causal, checks.problem(core))
        self.teacher, self.hidden = teacher, hidden
        self.on_policy: Callable | None = on_policy
        if teacher is not None:
            place(teacher.requires_grad_(False).eval(), self.args.device)
        if hidden is not None:
            hidden.prepare(model, teacher)  # type: ignore[operator]
            hidden.to(self.args.device)
        self._look_over(model, teacher)
        self.fused = self._fuses(model, teacher, fused)
        self._ends_seen = False
        self._sums: dict[str, torch.Tensor] = {}
        self._steps = 0
        self._evaluated: list | None = None

    # --- what __init__ asks ---

    def _teacher(self, model, teacher, options, config):
        """The teacher as a module: given, or loaded by the name given here or in the config."""
        if not isinstance(options, (dict, type(None))):
            raise TypeError(
                "DistillationTrainer: teacher_init: argument must be a dictionary, or None, got "
                f"{type(options).__name__}"
            )
        options = dict(options or {})
        if teacher is None:
            teacher = config.teacher_model_name_or_path
            given = config.teacher_model_init_kwargs
            if isinstance(given, str):
                raise ValueError(
                    "DistillationTrainer: args: argument must have teacher_model_init_kwargs as a "
                    f"dictionary or as JSON in braces, got {given!r}"
                )
            options = (given or {}) | options
            if config.teacher_model_revision:
                options.setdefault("revision", config.teacher_model_revision)
        if not isinstance(teacher, (str, os.PathLike)):
            return teacher
        kind = checks.auto_class(inside(model))
        return load_pretrained("DistillationTrainer", "teacher", teacher, kind, **options)

    def _objective(self, core, objective, config):
        numbers = not self.causal and checks.problem(core) == "regression"
        described = [name for name in OF_THE_LOSS if getattr(config, name) is not None]
        if objective is not None and described:
            raise ValueError(
                "DistillationTrainer: objective: argument must be left out where args describe the "
                f"loss, got {objective!r} and {described}"
            )
        if objective is None:
            objective = described_objective(config, self.causal, numbers)
        checks.check_objective(objective, numbers)
        return objective

    def _collator(self, core, tokenizer):
        pad = getattr(tokenizer, "pad_token_id", None)
        if pad is None:
            pad = getattr(getattr(core, "config", None), "pad_token_id", None)
        return Collator(tokenizer, pad=pad, label=self.label)

    def _look_over(self, model, teacher):
        """What both models take, and how long and of which tokens a text may be."""
        names = {"student": takes(model), "teacher": takes(model if teacher is None else teacher)}
        if None in names.values() and self.args.remove_unused_columns:
            raise ValueError(
                "DistillationTrainer: args: argument must have remove_unused_columns=False for a "
                "model whose forward names nothing that it takes (**kwargs), got True"
            )
        self.sides = {
            side: Side(side, found, self.label, self.hidden) for side, found in names.items()
        }
        models = [m for m in (model, teacher) if m is not None]
        self.room = min((n for m in models if (n := positions(m)) is not None), default=None)
        known = (checks.known_tokens(m) for m in models)
        self.tokens = min((n for n in known if n is not None), default=None)
        checks.check_own_text(self.objective, self.on_policy)
        if isinstance(self.on_policy, Draws):
            self.on_policy.positions = self.room
            checks.check_room_to_write(self.on_policy, self.room)

    def _fuses(self, model, teacher, asked):
        """Whether the loss is computed straight from hidden states."""
        elsewhere = self.is_deepspeed_enabled or self.is_fsdp_enabled or self.args.torch_compile
        whole = not (elsewhere or compiled(model) or (teacher is not None and compiled(teacher)))
        plain = type(self.objective) is TokenLoss and known_divergence(self.objective)
        fits = whole and plain and fusible(model, teacher, self.vocab_size)
        if asked is True and not fits:
            raise ValueError(
                "DistillationTrainer: fused: argument must be False or 'auto' but for two causal "
                "language models, not compiled, whose logits are what nn.Linear heads answer, and "
                "a TokenLoss, got True"
            )
        if asked == "auto":
            return fits and model.get_output_embeddings().out_features >= FUSED_FROM
        return fits and asked

    # --- the projectors of hidden: trained and kept with the student, but no part of it ---

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """As Trainer's; hidden is a submodule meanwhile, for the optimiser, clipping and DDP."""
        checks.check_texts(self.train_dataset, self.room, self.tokens)
        self._sums, self._steps = {}, 0  # of the log's terms
        self.counted = 0
        student: Any = self.model
        student.add_module(PROJECTORS, self.hidden)
        try:
            return super().train(*args, **kwargs)
        finally:
            student._modules.pop(PROJECTORS, None)

    def _save(self, output_dir=None, state_dict=None):
        weights = self.model.state_dict() if state_dict is None else state_dict
        own = {k: v for k, v in weights.items() if not k.startswith(PROJECTORS + ".")}
        super()._save(output_dir, own)

    def _save_optimizer_and_scheduler(self, output_dir):
        super()._save_optimizer_and_scheduler(output_dir)
        # sharded by FSDP, the projectors are in its own file of the model
        if self.hidden is not None and self.args.should_save and not self.is_fsdp_enabled:
            place = os.path.join(output_dir, PROJECTORS + ".safetensors")
            save_file(self.hidden.state_dict(), place)

    def _load_from_checkpoint(self, resume_from_checkpoint, model=None):
        if self.is_fsdp_enabled:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
            return
        self.model._modules[PROJECTORS] = None
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        self.model._modules[PROJECTORS] = self.hidden
        if self.hidden is not None:
            place = os.path.join(resume_from_checkpoint, PROJECTORS + ".safetensors")
            self.hidden.load_state_dict(load_file(place))

    # --- batches ---

    def _set_signature_columns_if_needed(self):
        super()._set_signature_columns_if_needed()
        wanted = {"teacher_logits"}.union(*(side.takes or () for side in self.sides.values()))
        if isinstance(self.data_collator, SignalCollator):
            wanted.add(self.data_collator.id)
        self._signature_columns += sorted(wanted - {*self._signature_columns})

    def get_batch_samples(
        self, epoch_iterator: Any, num_batches: int, device: torch.device
    ) -> tuple:
        """The batches of one step, some replaced by on_policy, and how much counts in them."""
        batches = itertools.islice(epoch_iterator, num_batches)
        batches = [laid_out(batch, self.label)[0] for batch in batches]
        for batch in batches if not self._ends_seen else ():
            self._look_for_ends(batch)
        if self.on_policy is not None:
            batches = self.on_policy(self.model, batches, self.state.global_step)
        self._steps += 1
        items = self._get_num_items_in_batch(batches, device)
        self.counted = self.counted + items[0]  # fit refuses a training in which nothing did
        return batches, items

    def _get_num_items_in_batch(self, batch_samples, device):
        """[tokens or sentences that count, sequences that hold one], of all processes together."""
        counts = [counts.reshape(len(counts), -1) for _, counts in map(self.targets, batch_samples)]
        found = [[c.sum(), c.any(1).sum()] for c in counts] or [[0, 0]]
        items = torch.tensor(found, device=device).sum(0)
        together = self.args.average_tokens_across_devices
        return self.accelerator.reduce(items, "sum") if together else items

    def _look_for_ends(self, batch):
        """Warn, once, of an end of text that no label holds: no student would learn to stop."""
        tokenizer = self.processing_class or getattr(self.data_collator, "tokenizer", None)
        end, labels = getattr(tokenizer, "eos_token_id", None), batch.get(self.label)
        if not self.causal or end is None or labels is None:
            return
        if labels.shape != batch["input_ids"].shape:
            return
        real = batch.get("attention_mask", torch.ones_like(labels)).bool()
        learnt, ends = real & (labels != -100), real & (batch["input_ids"] == end)
        prompts = (real & ~learnt)[:, 1:].any()
        if (learnt & ends).any() or not (ends.any() or prompts):
            return
        self._ends_seen = True
        never = "its label is −100 wherever it stands"
        why = never if ends.any() else "no text of the batch ends with it"
        warnings.warn(
            f"DistillationTrainer: train_dataset: the end of text {tokenizer.eos_token!r} never "
            f"counts, {why}, so the student does not learn to stop; kdlab's Collator keeps the "
            "labels given, also where the end of text is the padding token",
            stacklevel=2,
        )

    # --- the loss ---

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """The sum over what counts in one batch, divided by the items of the whole step."""
        given = inputs
        inputs, as_given = laid_out(inputs, self.label)
        checks.check_length(inputs, self.room)
        if (items := num_items_in_batch) is None:
            items = self._get_num_items_in_batch([inputs], self.args.device)
        labels, counts = self.targets(inputs)
        kept = inputs.get("teacher_logits")
        shown = return_outputs and not self.args.prediction_loss_only
        fused = self.fused and kept is None and not shown
        taught, layers = self._taught(inputs, kept, fused)
        answer, _ = self.sides["student"].forward(self.model, model, inputs, fused, layers)
        terms = self._terms(answer["answer"], taught, labels, counts, fused)
        terms["hidden"] = self._hidden_rows(answer, counts)
        loss = terms["total"] / items[0].clamp_min(1)
        if self.hidden is not None:
            loss = loss + terms["hidden"].sum() / items[1].clamp_min(1)
        # every process has its share of one sum, but DDP averages
        share = self.accelerator.num_processes if self.args.average_tokens_across_devices else 1
        loss = loss * share
        if model.training:
            self._keep_for_the_log(terms, items, share)
        elif self._evaluated is not None:
            given_rows = next(len(v) for v in given.values() if torch.is_tensor(v) and v.ndim)
            self._keep_for_the_evaluation(terms, counts, given_rows)
        if not return_outputs:
            return loss
        if fused:
            return loss, {}
        shape = getattr(inputs.get("input_ids"), "shape", None)
        a_token_each = answer["answer"].shape[:2] == shape
        return loss, {"logits": as_given(answer["answer"]) if a_token_each else answer["answer"]}

    def _taught(self, inputs, kept, fused):
        """The teacher's answer (or what stands in its place) and its hidden layers."""
        needed = self.objective.needs_teacher and kept is None
        if not needed and self.hidden is None:
            return (kept if self.objective.needs_teacher else None), None
        if self.teacher is None:
            raise ValueError(
                "DistillationTrainer: teacher: argument must be an nn.Module, or give "
                "teacher_logits in the data, for the objective "
                f"{type(self.objective).__name__}; got None"
            )
        with torch.no_grad(), self.accelerator.autocast():
            side = self.sides["teacher"]
            answer, layers = side.forward(self.teacher, self.teacher, inputs, fused)
        return (answer["answer"] if kept is None else kept), layers

    def _hidden_rows(self, answer, counts):
        """The loss on hidden layers of each sequence that holds something that counts, (B,)."""
        if self.hidden is None:
            return counts.new_full(counts.shape[:1], math.nan, dtype=torch.float)
        return torch.where(counts.reshape(len(counts), -1).any(1), answer["hidden"], 0.0)

    def _terms(self, student, teacher, labels, counts, fused):
        """The terms of what counts: "total", their sum, and "loss", "soft", "hard" a row."""
        teacher = student.detach() if teacher is None else teacher
        if self.vocab_size is not None and not fused:
            student = student[..., : self.vocab_size]
            teacher = teacher[..., : self.vocab_size] if self.objective.one_vocabulary else teacher
        checks.check_shapes(self.objective, self.label, student, teacher, counts, fused)
        numbers = isinstance(self.objective, SquaredError)
        several = not self.causal and not numbers and labels.shape == student.shape
        if several:
            student, teacher = two_classes(student), two_classes(teacher)
        elif not numbers:
            tokens = self.vocab_size or self._width(student, fused)
            check_labels("DistillationTrainer", labels, student.shape[:-1], tokens)
        if self.causal and not fused and isinstance(self.objective, TokenLoss):
            return self._token_terms(student, teacher, labels)
        if self.causal:
            teacher = next_token(teacher, labels)[0]
            (student, labels), counts = next_token(student, labels), counts[:, 1:]
        student, teacher, labels = (x[counts] for x in (student, teacher, labels))
        if fused:
            return self._fused_terms(student, teacher, labels)
        if isinstance(self.objective, TokenLoss):  # whose divergence looks at the logits itself
            # a sentence without a label counts here: −100 would not
            labels = labels if self.objective.needs_labels else labels.clamp_min(0)
        elif self.objective.one_vocabulary and not numbers:
            student, teacher = check_logits("DistillationTrainer", student, teacher)
        terms = self.objective.rows(student, teacher, labels)
        if several:
            terms = {k: rows.mean(-1) for k, rows in terms.items()}
        if self.causal and self._evaluated is not None:  # for the perplexity
            terms["hard"] = cross_entropy_rows(student.detach(), labels)
        return terms | {"total": terms["loss"].sum()}

    def _token_terms(self, student, teacher, labels):
        """The same of a `TokenLoss`, without a copy of logits: the labels move onto them instead.

        What does not count has the label −100, and the divergence looks at the others itself.
        """
        labels = F.pad(labels[:, 1:], (0, 1), value=-100)
        counts = labels != -100
        rows = self.objective.rows(student, teacher, labels)
        if self._evaluated is not None:  # for the perplexity
            rows["hard"] = cross_entropy_rows(student.detach(), labels)
        terms = {name: of_rows[counts] for name, of_rows in rows.items()}
        return terms | {"total": terms["loss"].sum()}

    def _width(self, student, fused):
        """How many classes the student answers with."""
        head = inside(self.model).get_output_embeddings() if fused else None
        return student.shape[-1] if head is None else head.out_features

    def _fused_terms(self, student, teacher, labels):
        heads = (inside(m).get_output_embeddings() for m in (self.model, self.teacher))
        with self.accelerator.autocast():
            return fused_terms(
                *(student, next(heads), teacher, next(heads), labels, self.objective),
                vocab_size=self.vocab_size,
                with_hard=self._evaluated is not None,
            )

    # --- what is told ---

    def _keep_for_the_log(self, terms, items, share):
        for name in TERMS:
            if name in terms:
                rows, n = terms[name].detach(), items[1 if name == "hidden" else 0]
                mean = share * rows.sum() / n.clamp_min(1)
                self._sums[name] = self._sums.get(name, 0) + mean

    def log(self, logs: dict[str, Any], *args: Any, **kwargs: Any) -> None:
        """As Trainer's; beside the loss stand its terms, averaged over the steps since the last."""
        if "loss" in logs and self._steps:
            for name in TERMS:
                total = self._sums.get(name, torch.tensor(math.nan, device=self.args.device))
                logs[name] = self.accelerator.reduce(total / self._steps, "mean").item()
            self._sums, self._steps = {}, 0
        super().log(logs, *args, **kwargs)

    def prediction_step(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple:
        """As Trainer's; also of rows without labels, where the objective needs only the teacher."""
        if inputs.get(self.label) is not None or self.objective.needs_labels:
            return super().prediction_step(model, inputs, prediction_loss_only, ignore_keys)
        inputs = self._prepare_inputs(inputs)
        with torch.no_grad():
            loss, found = self.compute_loss(model, inputs, return_outputs=True)
        return loss.detach(), None if prediction_loss_only else found.get("logits"), None

    def evaluation_loop(self, *args: Any, metric_key_prefix: str = "eval", **kwargs: Any) -> Any:
        """As Trainer's, but the loss is a mean over what counts in the whole set, not over batches.

        So it is the same for every batch size and number of processes. Beside it stand its terms
        and, for a language model, the perplexity exp(mean "hard").
        """
        self._evaluated = []
        try:
            found: Any = super().evaluation_loop(
                *args,
                metric_key_prefix=metric_key_prefix,
                **kwargs,
            )
            means = self._means_of_the_evaluation()
        finally:
            self._evaluated = None
        found.metrics.update({f"{metric_key_prefix}_{k}": v for k, v in means.items()})
        return found

    def _keep_for_the_evaluation(self, terms, counts, given):
        """A row of sums for each sequence; those that fill up the last batch are dropped."""
        where = (counts[:, 1:] if self.causal else counts).nonzero()[:, 0]
        sums = torch.zeros(len(counts), len(TERMS) + 3, dtype=torch.double)
        for column, name in enumerate(("loss", "soft", "hard")):
            rows = terms.get(name, torch.full(where.shape, math.nan))
            sums[:, column].index_add_(0, where.cpu(), rows.detach().double().cpu())
        sums[:, 3] = terms["hidden"].detach().double().cpu()
        per_row = counts.reshape(len(counts), -1)
        sums[:, 4], sums[:, 5] = per_row.sum(1).cpu(), per_row.any(1).cpu()
        sums = sums.to(self.args.device, torch.float if self.args.device.type == "mps" else None)
        if len(sums) == given:
            sums = self.accelerator.gather_for_metrics(sums)
        else:  # packed: documents, whose number differs between processes
            sums = self.accelerator.gather(sums.sum(0, keepdim=True))
        self._evaluated.append(sums.sum(0))

    def _means_of_the_evaluation(self):
        """The loss, its terms and the perplexity over everything that was evaluated.

        NaN where nothing counts: no tokens, or for hidden layers no sequences.
        """
        if not self._evaluated:
            return {}
        loss, soft, hard, hidden, tokens, sequences = torch.stack(self._evaluated).sum(0).tolist()
        tokens, sequences = tokens or math.nan, sequences or math.nan
        means = {"soft": soft / tokens, "hard": hard / tokens, "hidden": hidden / sequences}
        means["loss"] = loss / tokens + (means["hidden"] if self.hidden is not None else 0)
        if self.causal:
            means["perplexity"] = math.inf if means["hard"] > 700 else math.exp(means["hard"])
        return means
