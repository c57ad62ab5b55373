"""A small encoder out of a large one: its blocks copied (DistilBERT), or tapped on both sides for a loss."""

import copy
import math
from typing import NamedTuple

import torch
from torch import nn

from .arguments import whole
from .features import tap

STACKS = {  # where an encoder keeps its blocks, and where a block its queries, keys and values
    "encoder.layer": ("attention.self.query", "attention.self.key", "attention.self.value"),  # BERT, RoBERTa, ELECTRA
    "transformer.layer": ("attention.q_lin", "attention.k_lin", "attention.v_lin")}  # DistilBERT


def student_from(teacher, layers=None, every=None):
    """A student made of the teacher's own blocks, embeddings and head: DistilBERT's start.

    teacher: a model of `transformers` with one stack of blocks and any head (BERT, RoBERTa, DistilBERT, also Llama).
    layers: the blocks to keep, from 0, as [0, 2, 4]; or every: 2 keeps each second one, the first included.
    The student is a fresh model of the teacher's class, in eval mode, ready to be read: whoever
    trains it puts it into train mode. It has the teacher's dtypes and devices and shares no memory
    with it. The global random generator is left as it was. TypeError for another model, ValueError
    for blocks that the teacher doesn't have.
    Source: Sanh et al. 2019, section 3, "Student initialization" (there without the pooler and the
    token types, which stay here).

    >>> from transformers import BertConfig, BertModel
    >>> teacher = BertModel(BertConfig(vocab_size=9, hidden_size=8, num_hidden_layers=4, num_attention_heads=2,
    ...                                intermediate_size=8))
    >>> student = student_from(teacher, every=2)
    >>> student.config.num_hidden_layers, torch.equal(student.encoder.layer[1].output.dense.weight,
    ...                                               teacher.encoder.layer[2].output.dense.weight)
    (2, True)
    """
    config = copy.deepcopy(getattr(teacher, "config", None))
    if not isinstance(depth := getattr(config, "num_hidden_layers", None), int):
        raise TypeError("student_from: teacher must be a model of transformers whose config says num_hidden_layers, "
                        f"got {type(teacher).__name__}")
    if (layers is None) == (every is None):
        raise ValueError(f"student_from: expected either layers or every, got layers={layers!r} and every={every!r}")
    if layers is None:
        layers = range(0, depth, whole("student_from", "every", every, least=1))
    if not isinstance(layers, (list, tuple, range)) or not layers:
        raise ValueError(f"student_from: layers must be a list of blocks from 0 to {depth - 1}, "
                         f"got {layers!r}")
    layers = [whole("student_from", "layers", block, most=depth - 1) for block in layers]
    if len(set(layers)) < len(layers):
        raise ValueError(f"student_from: layers must be different blocks, got {layers}")
    lists = [name for name, module in teacher.named_modules()
             if isinstance(module, nn.ModuleList) and len(module) == depth]
    stacks = [name for name in lists if not any(name.startswith(outer + ".") for outer in lists)]
    if len(stacks) != 1:
        raise ValueError(f"student_from: teacher must have one stack of {depth} blocks, got {stacks}")
    for key, value in vars(config).items():
        if "layer" in key and isinstance(value, list) and len(value) == depth:  # such as layer_types: one a block
            setattr(config, key, [value[i] for i in layers])
    config.num_hidden_layers = len(layers)
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        student = type(teacher)(config)
    theirs = {**dict(teacher.named_parameters(remove_duplicate=False)), **dict(teacher.named_buffers())}
    stack = stacks[0] + "."
    for name, tensor in [*student.named_parameters(), *student.named_buffers()]:
        if name.startswith(stack):
            block, dot, rest = name.removeprefix(stack).partition(".")
            name = f"{stack}{layers[int(block)]}{dot}{rest}"
        tensor.data = theirs[name].detach().clone()  # in place, so that tied weights stay tied
    if getattr(teacher, "generation_config", None) is not None:
        student.generation_config = copy.deepcopy(teacher.generation_config)
    return student.eval()  # a new model is in train mode, and would be read with dropout


def attention_scores(query, key, heads):
    """What attention takes the softmax of: (B, L, H), (B, L, H) → Q Kᵀ / √(H / heads), (B, heads, L, L).

    heads: how many parts H is cut into. With values for both it is MiniLM's value relation.

    >>> attention_scores(torch.ones(1, 3, 8), torch.ones(1, 3, 8), heads=2)[0, :, 0, 0]
    tensor([2., 2.])
    """
    q, k = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (query, key))
    return q @ k.mT / math.sqrt(q.shape[-1])


def mean_rows(x, mask):
    """The mean of each sentence over the places that count: (B, ...) and a mask that broadcasts to it → (B,).

    A sentence without such a place is 0.

    >>> mean_rows(torch.tensor([[1.0, 5.0], [2.0, 4.0]]), torch.tensor([[True, False], [True, True]]))
    tensor([1., 3.])
    """
    mask = mask.expand_as(x).flatten(1)
    return torch.where(mask, x.flatten(1), 0.0).sum(1) / mask.sum(1).clamp_min(1)


class Encoder(NamedTuple):
    """What there is to tap in an encoder, and its sizes; made by `find_encoder`.

    >>> encoder = Encoder(["encoder.layer.0"], STACKS["encoder.layer"], "embeddings", heads=2, width=8, embedding=8)
    >>> encoder.name("hidden", 0), encoder.name("key", 0)
    ('encoder.layer.0', 'encoder.layer.0.attention.self.key')
    """

    blocks: list
    parts: tuple
    embeddings: str
    heads: int
    width: int
    embedding: int

    def name(self, part, block):
        """The module that gives a block's "query", "key", "value" or "hidden" (its output), or the "embedding"."""
        if part in ("embedding", "hidden"):
            return self.embeddings if part == "embedding" else self.blocks[block]
        return f"{self.blocks[block]}.{self.parts[('query', 'key', 'value').index(part)]}"


def find_encoder(owner, model):
    """The encoder inside a model, whatever its head, as an `Encoder`; a ValueError says what was looked for.

    >>> find_encoder("example", nn.Linear(2, 2))  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ValueError: example: the model must hold one encoder, with 'encoder.layer.0.attention.self.query', ...
    """
    modules, config = dict(model.named_modules()), getattr(model, "config", None)
    found = [(name.removesuffix(stack), name, parts) for stack, parts in STACKS.items() for name in modules
             if ("." + name).endswith("." + stack) and all(f"{name}.0.{part}" in modules for part in parts)]
    if len(found) != 1 or config is None or getattr(config, "is_decoder", False):
        sought = " or ".join(", ".join(f"'{stack}.0.{part}'" for part in parts) for stack, parts in STACKS.items())
        raise ValueError(f"{owner}: the model must hold one encoder, with {sought}, and a config that is no decoder's; "
                         f"got {[name for _, name, _ in found] or 'none'} in {type(model).__name__}")
    (prefix, name, parts), = found
    return Encoder([f"{name}.{i}" for i in range(len(modules[name]))], parts, prefix + "embeddings",
                   config.num_attention_heads, config.hidden_size,
                   modules[prefix + "embeddings.word_embeddings"].embedding_dim)


def _said(encoder):
    """An encoder in words, for an error."""
    return (f"{len(encoder.blocks)} blocks from {encoder.blocks[0]!r} on, {encoder.heads} heads, "
            f"width {encoder.width}, embedding {encoder.embedding}")


class EncoderLoss(nn.Module):
    """What losses on the layers of two encoders share: modules to tap, and a loss a sentence without its padding.

    A subclass gives `fit(student, teacher)`: two `Encoder`s → the layers to collect, [(part, block)] for each side
    (parts as in `Encoder.name`); and `rows(student, teacher, mask)`: {(part, block): (B, L, H)} for each side, in
    float32 or better, 0 on padding, the teacher's detached, and mask (B, L), true on real tokens → (B,).
    Called with what `collect` gathered and attention_mask (B, L), 0 on padding, None if there is none.

    >>> from transformers import BertConfig, BertModel
    >>> class Answers(EncoderLoss):
    ...     def fit(self, student, teacher):
    ...         return [("hidden", 0)], [("hidden", 1)]
    ...     def rows(self, student, teacher, mask):
    ...         return mean_rows((student["hidden", 0] - teacher["hidden", 1]).abs(), mask[..., None])
    >>> model = BertModel(BertConfig(vocab_size=9, hidden_size=8, num_hidden_layers=2, num_attention_heads=2))
    >>> loss = Answers()
    >>> loss.prepare(model, model)
    >>> with loss.collect(model, "student") as mine, loss.collect(model, "teacher") as theirs:
    ...     answer = model(torch.ones(5, 7, dtype=torch.long))
    >>> loss(mine, theirs).shape
    torch.Size([5])
    """

    names = encoders = None

    def prepare(self, student, teacher, seed=0):
        """Look both models over and make what is learnt beside the student, in float32 or its wider dtype, beside it.

        Drawn from the seed, anew at each call; the global random generator is left as it was. Raises ValueError
        where the two don't fit.
        """
        encoders = [find_encoder(type(self).__name__, model) for model in (student, teacher)]
        with torch.random.fork_rng(devices=[]), torch.device("cpu"):
            torch.default_generator.manual_seed(seed)  # torch.manual_seed would reseed the GPUs too
            layers = self.fit(*encoders)
        self.encoders = dict(zip(("student", "teacher"), encoders, strict=True))
        self.names = {side: {key: encoder.name(*key) for key in keys}
                      for side, encoder, keys in zip(("student", "teacher"), encoders, layers, strict=True)}
        own = next(p for p in student.parameters() if p.is_floating_point())
        self.to(own.device, torch.promote_types(own.dtype, torch.float32))  # half precision loses small steps

    def collect(self, model, side):
        """Within it, a forward pass of the model fills the dictionary it yields; side: "student" or "teacher".

        model: as given to `prepare`; ValueError for another, of other names, depth or widths, and
        for a wrapper (DDP, torch.compile, an adapter) put around it since.
        """
        if side not in (self.names or {}):
            raise ValueError(f"{type(self).__name__}: collect expects prepare(student, teacher) before it and side "
                             f"'student' or 'teacher', got {side!r}")
        self._check_same(model, side)
        return tap(model, self.names[side].values())

    def _check_same(self, model, side):
        owner, seen = type(self).__name__, self.encoders[side]
        try:
            found = find_encoder(owner, model)
        except ValueError as error:  # what is around it may hide its config
            found = str(error).rpartition("; got ")[2]
        if found != seen:
            got = found if isinstance(found, str) else _said(found)
            raise ValueError(
                f"{owner}: collect: model must be the {side} that prepare saw, {_said(seen)}; got {got}; "
                "expected it without a wrapper put around it since, or prepare(student, teacher) once more")

    def forward(self, student_layers, teacher_layers, attention_mask=None):
        owner, sides = type(self).__name__, {"student": student_layers, "teacher": teacher_layers}
        if self.names is None or any(not set(self.names[side].values()) <= set(sides[side]) for side in sides):
            raise ValueError(f"{owner}: student_layers and teacher_layers must be what collect(model, side) yields, "
                             f"filled by a forward pass; got {sorted(student_layers)} and {sorted(teacher_layers)}")
        sides = {side: {key: sides[side][name] for key, name in self.names[side].items()} for side in sides}
        first = next(iter(sides["student"].values()))
        mask = first.new_ones(first.shape[:2]) if attention_mask is None else attention_mask
        for side, layers in sides.items():
            for x in layers.values():
                if x.ndim != 3 or mask.shape != x.shape[:2]:
                    raise ValueError(f"{owner}: {side}_layers must be (B, L, H) and attention_mask (B, L), "
                                     f"got {tuple(x.shape)} and {tuple(mask.shape)}")
        mask = mask.bool()

        def real(x):  # padding may hold anything, NaN included
            return torch.where(mask[..., None], x if x.dtype == torch.float64 else x.float(), 0.0)

        with torch.autocast(mask.device.type, enabled=False):
            return self.rows({key: real(x) for key, x in sides["student"].items()},
                             {key: real(x.detach()) for key, x in sides["teacher"].items()}, mask)
