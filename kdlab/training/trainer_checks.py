"""What a `DistillationTrainer` expects, and the errors that say so before anything is trained."""

import os

from torch import is_tensor, nn
from transformers import TrainingArguments

from kdlab.base.wrapped import compiled, inside
from kdlab.data.rows import PACKING
from kdlab.losses.hidden import HiddenLoss
from kdlab.losses.kd import SquaredError
from kdlab.losses.protocol import LayersLoss, Objective
from kdlab.teachers.signals_taught import SignalCollator, TopKLoss
from kdlab.training.generate import Draws


def problem(core):
    """What a classifier's head is for, in transformers' words; None where the labels decide."""
    config = getattr(core, "config", None)
    asks = any(
        kind in type(core).__name__ for kind in ("SequenceClassification", "ImageClassification")
    )
    if not asks and getattr(config, "problem_type", None) is None:
        return "single_label_classification" if config is not None else None
    found = getattr(config, "problem_type", None)
    return "regression" if found is None and config.num_labels == 1 else found


def _refuse(name, expected, got):
    raise ValueError(f"DistillationTrainer: {name}: argument must be {expected}, got {got}")


def check(model, args, teacher, hidden, on_policy, fused, half_precision, others):
    """The errors that need no data."""
    _check_student(model, args)
    _check_hidden(hidden)
    _check_teacher(teacher, model, hidden)
    if hidden is not None and (
        compiled(model) or (teacher is not None and compiled(teacher)) or args.torch_compile
    ):
        _refuse("hidden", "None for a compiled model, whose layers can't be tapped", _named(hidden))
    if on_policy is not None and not callable(on_policy):
        _refuse("on_policy", "as kd.OnPolicy, or None", _named(on_policy))
    if not isinstance(fused, (bool, str)) or fused not in (True, False, "auto"):
        _refuse("fused", "True, False or 'auto'", repr(fused))
    _check_precision(model, half_precision)
    _check_trainers_own(args, others)


def _check_student(model, args):
    if not isinstance(model, nn.Module):
        _refuse("model", "an nn.Module", type(model).__name__)
    if not isinstance(args, TrainingArguments):
        _refuse("args", "transformers.TrainingArguments", type(args).__name__)
    if getattr(getattr(model, "config", None), "is_encoder_decoder", False):
        _refuse("model", "a causal language model or a classifier", "an encoder with a decoder")


def _check_hidden(hidden):
    if hidden is not None and not (
        isinstance(hidden, nn.Module) and isinstance(hidden, LayersLoss)
    ):
        _refuse(
            "hidden",
            "a loss on the layers of two transformers, such as LayerMap or Relations (a HiddenLoss "
            "belongs to kd.distill and kd.sweep)",
            _named(hidden),
        )


def _check_teacher(teacher, model, hidden):
    missed = teacher is None and hidden is not None
    if missed or not (teacher is None or isinstance(teacher, nn.Module)):
        _refuse("teacher", "an nn.Module, or None without hidden", type(teacher).__name__)
    own, theirs = (
        {p.data_ptr() for p in m.parameters()} if m is not None else set() for m in (model, teacher)
    )
    if own & theirs - {0}:
        _refuse("teacher", "another model than the student", "one that shares its parameters")


def _check_precision(model, half_precision):
    """Weights that learn in half precision lose small steps; half_precision: they may."""
    half = {
        p.dtype
        for p in model.parameters()
        if p.requires_grad and p.is_floating_point() and p.element_size() < 4
    }
    if half and not half_precision:
        _refuse(
            "model",
            "in float32, as kd.language_model(name, dtype=torch.float32) or model.float() makes it"
            " (with args bf16=True it computes in half precision all the same), or"
            " half_precision=True, with which small steps round away",
            f"trainable weights in {', '.join(map(str, half))}",
        )


def _check_trainers_own(args, others):
    """What Trainer would take and this one can't follow."""
    if len(args.label_names or ["labels"]) != 1:
        _refuse("args", "with one name in label_names", args.label_names)
    replaced = ("model_init", "compute_loss_func", "label_smoothing_factor")
    if refused := [k for k in replaced if k in others or getattr(args, k, 0)]:
        _refuse("trainer_arguments", "Trainer's without what model and objective replace", refused)
    if getattr(args, "n_gpu", 1) > 1:
        _refuse("args", "for one GPU a process (accelerate launch)", "several GPUs")


def _named(value):
    return value.__name__ if hasattr(value, "__name__") else type(value).__name__


def check_objective(objective, numbers):
    """The error for what is no objective, or none for the student's kind of answers."""
    if not isinstance(objective, Objective):
        function = callable(objective) and not isinstance(objective, type)
        named = function and hasattr(objective, "__name__")
        made = (
            f"kd.TokenLoss(kd.{objective.__name__})" if named else "kd.TokenLoss() or kd.KDLoss()"
        )
        raise TypeError(
            f"DistillationTrainer: objective: argument must be an instance such as {made}, "
            f"got {_named(objective)}"
        )
    if isinstance(objective, HiddenLoss):
        raise TypeError(
            "DistillationTrainer: objective: argument must be an instance such as kd.TokenLoss();"
            " HiddenLoss belongs to kd.distill and kd.sweep, here hidden=kd.LayerMap(…), got"
            " HiddenLoss"
        )
    if objective.one_vocabulary and isinstance(objective, SquaredError) != numbers:
        fits = (
            "kd.SquaredError(), for numbers"
            if numbers
            else "for classes, as kd.KDLoss(), or for tokens"
        )
        raise ValueError(
            f"DistillationTrainer: objective: argument must be {fits}, got {_named(objective)}"
        )


def check_sharding(accelerator):
    """The error for FSDP that accelerate was asked for and passes over: on processes without a GPU
    it shards nothing, says nothing, and each trains on gradients of its own."""
    asked = os.environ.get("ACCELERATE_USE_FSDP", "").lower() in ("1", "true", "yes")
    kind = accelerator.distributed_type.value
    if asked and accelerator.num_processes > 1 and kind != "FSDP":
        raise ValueError(
            "DistillationTrainer: args: argument must leave FSDP out where there is no GPU, since "
            "accelerate then neither shards nor merges gradients, got FSDP and "
            f"{accelerator.num_processes} processes of the kind {kind}"
        )


def check_signals(objective, collator, on_policy):
    """The error for signals on disk that the loss does not read, or a loss that lacks them."""
    kept = isinstance(collator, SignalCollator)
    if kept != isinstance(objective, TopKLoss):
        _refuse(
            "objective" if kept else "data_collator",
            "a kd.TopKLoss beside the signals of a kd.SignalCollator"
            if kept
            else "a kd.SignalCollator, whose signals kd.TopKLoss reads",
            _named(objective if kept else collator),
        )
    if kept and objective.temperature != collator.temperature:
        _refuse(
            "objective",
            f"at the temperature of the signals, {collator.temperature:g}",
            f"{objective.temperature:g}",
        )
    if kept and collator.sampled and not objective.takes_draws:
        _refuse(
            "objective",
            "kd.TopKLoss with divergence=kd.forward_kl for signals that were sampled, whose mean "
            "no other divergence follows",
            _named(objective.divergence),
        )
    if kept and on_policy is not None:
        _refuse("on_policy", "None where signals on disk teach, which know no new text", on_policy)


def check_own_text(objective, on_policy):
    """A loss for the student's own text needs all of it to be, as the student draws it."""
    if not objective.own_text or not (on_policy is None or isinstance(on_policy, Draws)):
        return  # a function of the user's own says what it writes
    T = getattr(objective, "temperature", 1.0)
    wanted = {"temperature": T, "top_k": 0, "top_p": 1.0}
    drawn = {} if on_policy is None else {k: on_policy.options[k] for k in wanted}
    got = "none" if on_policy is None else vars(on_policy)
    if drawn != wanted or on_policy.share < 1 or on_policy.long_prompts == "skip":
        raise ValueError(
            "DistillationTrainer: on_policy: argument must be "
            f"OnPolicy(share=1, temperature={T:g}) without top_k, top_p or skipped prompts, for "
            f"{_named(objective)} is right on the student's own text alone, got {got}"
        )


def vocabulary(model, teacher, vocab_size, tokenizer, objective):
    """How many columns of both heads are tokens (classes); None: all of them."""
    widths = [_width(m) for m in (model, teacher) if m is not None]
    if vocab_size is None:
        if (
            len(widths) < 2
            or None in widths
            or widths[0] == widths[1]
            or not objective.one_vocabulary
            or not objective.needs_teacher
        ):
            return None
        if (
            not hasattr(tokenizer, "get_vocab")
            or not getattr(inside(model), "can_generate", bool)()
        ):
            raise ValueError(
                f"DistillationTrainer: teacher: argument must have the student's {widths[0]} tokens"
                f" or classes, got {widths[1]}; where the heads of one tokenizer are padded to"
                " other widths give vocab_size=kd.same_tokenizer(a, b).vocab_size, or"
                " processing_class=the tokenizer; for other tokenizers see kdlab.uld"
            )
        vocab_size = max(tokenizer.get_vocab().values()) + 1
    narrow = min((w for w in widths if w is not None), default=vocab_size)
    if type(vocab_size) is not int or not 1 <= vocab_size <= narrow:
        raise ValueError(
            "DistillationTrainer: vocab_size: argument must be a whole number from 1 to the"
            f" narrower of the heads' widths {widths}, got {vocab_size!r}"
        )
    return vocab_size


def check_shapes(objective, label, student, teacher, counts, fused):
    """The error for answers that don't stand beside the labels, or beside each other."""
    if student.shape[:-1] != counts.shape:
        raise ValueError(
            f"DistillationTrainer: {label}: labels must be one a row of the student's answers "
            f"{tuple(student.shape)}, got {tuple(counts.shape)}"
        )
    alike = objective.one_vocabulary and not fused
    if teacher.shape[:-1] != student.shape[:-1] or (alike and teacher.shape != student.shape):
        raise ValueError(
            f"DistillationTrainer: teacher: logits must be {tuple(student.shape)}, got "
            f"{tuple(teacher.shape)}; where heads of one tokenizer are padded to other widths give "
            "vocab_size, for other tokenizers see kdlab.uld (an objective that brings two "
            "vocabularies together says one_vocabulary = False)"
        )


def auto_class(core):
    """The class of transformers that loads a teacher of the student's kind by name."""
    if getattr(core, "can_generate", bool)():
        return "AutoModelForCausalLM"
    for kind in ("SequenceClassification", "TokenClassification", "ImageClassification"):
        if kind in type(core).__name__:
            return f"AutoModelFor{kind}"
    _refuse("teacher", "an nn.Module for a student that is no model of transformers", "a name")


def _width(model):
    """How many numbers a model answers a row, as its head or its configuration says; None where
    neither does."""
    core = inside(model)
    head = core.get_output_embeddings() if hasattr(core, "get_output_embeddings") else None
    if head is not None:
        return getattr(head, "out_features", None)
    kinds = ("SequenceClassification", "TokenClassification", "ImageClassification")
    return core.config.num_labels if any(k in type(core).__name__ for k in kinds) else None


def check_texts(dataset, room, tokens):
    """The error that names a data set's first row longer than the models' positions, or with an id
    that is no token.

    room, tokens: how many positions and ids both models know, None where nothing says so. Only what
    can be read without a collator is looked at: a list of dictionaries, or a set of the package
    `datasets`."""
    for first, lengths, highest in _texts(dataset):
        for i, length in enumerate(lengths, start=first):
            if room is not None and length > room:
                raise ValueError(
                    f"DistillationTrainer: train_dataset: rows must fit the models' {room}"
                    f" positions, got {length} tokens in row {i}; cut the texts (truncation=True,"
                    f" max_length={room})"
                )
        if tokens is not None and highest is not None and highest >= tokens:
            raise ValueError(
                f"DistillationTrainer: train_dataset: input_ids must be below the models' {tokens}"
                f" tokens, got {highest} in rows from {first}; do texts and models share a"
                " tokenizer?"
            )


def _texts(dataset):
    """Parts of a data set as (number of its first row, lengths, highest id or None)."""
    if hasattr(dataset, "column_names") and hasattr(dataset, "__len__"):  # of the package datasets
        names = dataset.column_names or []
        if (
            "input_ids" not in names
            or set(PACKING) & set(names)
            or dataset.format["type"] == "custom"
        ):
            return
        import pyarrow.compute as pc

        first = 0
        for table in (
            dataset.select_columns("input_ids").with_format("arrow").iter(batch_size=10_000)
        ):
            ids = table["input_ids"]
            if not hasattr(ids.type, "value_type"):
                return  # no lists
            yield first, pc.list_value_length(ids).to_pylist(), pc.max(pc.list_flatten(ids)).as_py()
            first += len(ids)
    for i, row in enumerate(dataset if isinstance(dataset, (list, tuple)) else ()):
        ids = row.get("input_ids") if hasattr(row, "keys") and not set(PACKING) & set(row) else None
        if hasattr(ids, "__len__") and len(ids):
            yield i, [len(ids)], int(max(ids))


def known_tokens(model):
    """How many ids a model's embedding holds; None where it has none."""
    embed = getattr(inside(model), "get_input_embeddings", None)
    try:
        return getattr(embed(), "num_embeddings", None) if embed else None
    except NotImplementedError:  # of a model that reads no text
        return None


def check_room_to_write(on_policy, room):
    """The error for answers that would leave no place for a prompt."""
    wanted = on_policy.options["max_new_tokens"]
    if room is not None and wanted >= room:
        _refuse(
            "on_policy",
            f"one whose max_new_tokens leave room for a prompt within the models' {room} positions",
            wanted,
        )


def check_length(batch, room):
    """The error for a batch with a text longer than the models' positions."""
    ids, mask = batch.get("input_ids"), batch.get("attention_mask")
    if room is None or ids is None or ids.ndim != 2 or ids.shape[1] <= room:
        return
    longest = (
        int(mask.sum(1).max()) if mask is not None and mask.shape == ids.shape else ids.shape[1]
    )
    raise ValueError(
        f"DistillationTrainer: train_dataset: batches must fit the models' {room} positions, got"
        f" one of {ids.shape[1]} places, its longest text with {longest} tokens"
    )


def check_gradients(module, layers):
    """The error for tapped layers that were computed without gradients, which re-entrant
    recomputation does."""
    for name, x in layers.items():
        try:
            learns = any(p.requires_grad for p in module.get_submodule(name).parameters())
        except AttributeError:
            continue  # a name of the loss's own
        if learns and is_tensor(x) and not x.requires_grad:
            raise ValueError(
                f"DistillationTrainer: hidden: layer {name!r} came without a gradient, though its"
                " weights learn; re-entrant gradient checkpointing does that: expected"
                " gradient_checkpointing_kwargs={'use_reentrant': False}"
            )
