"""Losses on the layers of two encoders or decoders: TinyBERT's layer map, MiniLM's relations."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdlab.base.arguments import listed, number, one_of, whole
from kdlab.losses.divergences import FLOOR, kl_rows, log_softmax, reduce_rows
from kdlab.losses.hidden import tap

STACKS = {  # where a model keeps its blocks, where a block its queries, keys and values; embeddings
    # BERT, RoBERTa, ELECTRA
    "encoder.layer": (
        ("attention.self.query", "attention.self.key", "attention.self.value"),
        "embeddings",
    ),
    # DistilBERT
    "transformer.layer": (
        ("attention.q_lin", "attention.k_lin", "attention.v_lin"),
        "embeddings",
    ),
    # Llama, Mistral, Qwen, SmolLM
    "layers": (
        ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
        "embed_tokens",
    ),
    # GPT-2, which makes all three at once; with the positions' embeddings, as in an encoder
    "h": (("attn.c_attn",) * 3, "drop"),
}
DECODERS = ("layers", "h")  # where attention says itself which way it looks: BART's encoder too
WORDS = {"embeddings": "embeddings.word_embeddings", "drop": "wte"}  # the table within embeddings


PARTS = ("query", "key", "value")


def attention_scores(query, key, heads):
    """What attention takes the softmax of: Q Kᵀ / √(H / heads).

    q, k: (B, L, H) → (B, heads, L, L).

    heads: how many parts H is cut into. With values for both it is MiniLM's value relation.

    >>> attention_scores(torch.ones(1, 3, 8), torch.ones(1, 3, 8), heads=2)[0, :, 0, 0]
    tensor([2., 2.])
    """
    q, k = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (query, key))
    return q @ k.mT / math.sqrt(q.shape[-1])


def seen(mask, causal):
    """Which positions a position relates to: (B, L), true on real tokens → (B, 1, 1 or L, L).

    >>> seen(torch.tensor([[True, True, False]]), causal=True)[0, 0].int()
    tensor([[1, 0, 0],
            [1, 1, 0],
            [1, 1, 0]], dtype=torch.int32)
    """
    real = mask[:, None, None, :]
    length = mask.shape[1]
    before = torch.ones(length, length, dtype=torch.bool, device=mask.device).tril()
    return real & before if causal else real


def mean_rows(x, mask):
    """The mean of each sentence over the places that count: (B, ...) and a mask → (B,).

    mask broadcasts to the values. A sentence without such a place is 0.

    >>> mask = torch.tensor([[True, False], [True, True]])
    >>> mean_rows(torch.tensor([[1.0, 5.0], [2.0, 4.0]]), mask)
    tensor([1., 3.])
    """
    mask = mask.expand_as(x).flatten(1)
    return torch.where(mask, x.flatten(1), 0.0).sum(1) / mask.sum(1).clamp_min(1)


class Encoder(NamedTuple):
    """What there is to tap in an encoder or a decoder, and its sizes; made by `find_encoder`.

    value: the width of the values, below the model's where heads share them. causal: whether a
    position sees only those before it. rotary: whether queries and keys are rotated by position
    after they are made, so that what is tapped is not what attention multiplies.

    >>> blocks, parts = ["encoder.layer.0"], STACKS["encoder.layer"][0]
    >>> encoder = Encoder(blocks, parts, "embeddings", heads=2, width=8, embedding=8, value=8)
    >>> encoder.name("hidden", 0), encoder.name("key", 0)
    ('encoder.layer.0', 'encoder.layer.0.attention.self.key')
    """

    blocks: list
    parts: tuple
    embeddings: str
    heads: int
    width: int
    embedding: int
    value: int
    causal: bool = False
    rotary: bool = False

    def name(self, part, block):
        """A block's module for "query", "key", "value" or "hidden", or the "embedding"."""
        if part in ("embedding", "hidden"):
            return self.embeddings if part == "embedding" else self.blocks[block]
        return f"{self.blocks[block]}.{self.parts[PARTS.index(part)]}"

    def own(self, part, x):
        """A part alone, where one module makes queries, keys and values in a row."""
        if part in PARTS and len(set(self.parts)) == 1:
            return x.tensor_split(3, -1)[PARTS.index(part)]
        return x


def find_encoder(owner, model):
    """The encoder or decoder in a model, whatever its head; ValueError says what was looked for.

    >>> find_encoder("example", nn.Linear(2, 2))  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ValueError: example: the model must hold one encoder or decoder, with 'encoder.layer.0.atten...
    """
    modules, config = dict(model.named_modules()), getattr(model, "config", None)
    found = [
        (name.removesuffix(stack), name, stack)
        for stack, (parts, embeddings) in STACKS.items()
        for name in modules
        if ("." + name).endswith("." + stack)
        and all(f"{name}.0.{part}" in modules for part in parts)
        and name.removesuffix(stack) + embeddings in modules
    ]
    crossed = any(name.endswith(("crossattention", "encoder_attn")) for name in modules)
    if len(found) != 1 or config is None or crossed or _odd(config, found[0][2]):
        sought = " or ".join(
            ", ".join(f"'{stack}.0.{part}'" for part in dict.fromkeys(parts))
            for stack, (parts, _) in STACKS.items()
        )
        raise ValueError(
            f"{owner}: the model must hold one encoder or decoder, with {sought}, and a config "
            "that says no other; "
            f"got {[name for _, name, _ in found] or 'none'} in {type(model).__name__}"
        )
    ((prefix, name, stack),) = found
    parts, embeddings = STACKS[stack]
    heads = config.num_attention_heads
    a_head = getattr(config, "head_dim", None) or config.hidden_size // heads
    attention = modules[f"{name}.0.{parts[0]}".rpartition(".")[0]]
    return Encoder(
        [f"{name}.{i}" for i in range(len(modules[name]))],
        parts,
        prefix + embeddings,
        heads,
        config.hidden_size,
        modules[prefix + WORDS.get(embeddings, embeddings)].embedding_dim,
        value=a_head * (getattr(config, "num_key_value_heads", None) or heads),
        causal=stack in DECODERS and bool(getattr(attention, "is_causal", False)),
        rotary=any(name.endswith("rotary_emb") for name in modules),
    )


def _odd(config, stack):
    """Whether an encoder's config says decoder: then positions see less than its loss believes."""
    return stack not in DECODERS and getattr(config, "is_decoder", False)


def _said(encoder):
    """An encoder in words, for an error."""
    return (
        f"{len(encoder.blocks)} blocks from {encoder.blocks[0]!r} on, {encoder.heads} heads, "
        f"width {encoder.width}, embedding {encoder.embedding}"
        + (f", values {encoder.value}" if encoder.value != encoder.width else "")
    )


class EncoderLoss(nn.Module):
    """What losses on two models' layers share: modules to tap, a loss a sentence, no padding.

    Both are encoders, or both decoders, in which a position counts what came before it alone.

    A subclass gives `fit(student, teacher)`: two `Encoder`s → the layers to collect,
    [(part, block)] for each side (parts as in `Encoder.name`); and `rows(student, teacher, mask)`:
    {(part, block): (B, L, H)} for each side, in float32 or better, 0 on padding, the teacher's
    detached, and mask (B, L), true on real tokens → (B,). Called with what `collect` gathered and
    attention_mask (B, L), 0 on padding, None if there is none.

    >>> from transformers import BertConfig, BertModel
    >>> class Answers(EncoderLoss):
    ...     def fit(self, student, teacher):
    ...         return [("hidden", 0)], [("hidden", 1)]
    ...     def rows(self, student, teacher, mask):
    ...         apart = (student["hidden", 0] - teacher["hidden", 1]).abs()
    ...         return mean_rows(apart, mask[..., None])
    >>> sizes = dict(hidden_size=8, num_hidden_layers=2, num_attention_heads=2)
    >>> model = BertModel(BertConfig(vocab_size=9, **sizes))
    >>> loss = Answers()
    >>> loss.prepare(model, model)
    >>> with loss.collect(model, "student") as mine, loss.collect(model, "teacher") as theirs:
    ...     answer = model(torch.ones(5, 7, dtype=torch.long))
    >>> loss(mine, theirs).shape
    torch.Size([5])
    """

    fit: Callable[[Encoder, Encoder], Any]
    rows: Callable[..., Tensor]
    names: dict[str, dict] | None = None
    encoders: dict[str, Encoder] | None = None

    def prepare(self, student: nn.Module, teacher: nn.Module, seed: int = 0) -> None:
        """Look both models over and make what is learnt beside the student.

        It is in float32, or the student's dtype where that is wider. Drawn from the seed, anew at
        each call; the global random generator is left as it was.
        Raises ValueError where the two don't fit."""
        encoders = [find_encoder(type(self).__name__, model) for model in (student, teacher)]
        if encoders[0].causal != encoders[1].causal:
            told = ["a decoder" if found.causal else "an encoder" for found in encoders]
            raise ValueError(
                f"{type(self).__name__}: student and teacher must be of one kind, since a position "
                f"of a decoder does not see what follows, got {told[0]} and {told[1]}"
            )
        with torch.random.fork_rng(devices=[]), torch.device("cpu"):
            torch.default_generator.manual_seed(seed)  # torch.manual_seed would reseed the GPUs too
            layers = self.fit(*encoders)
        self.encoders = dict(zip(("student", "teacher"), encoders, strict=True))
        self.names = {
            side: {key: encoder.name(*key) for key in keys}
            for side, encoder, keys in zip(("student", "teacher"), encoders, layers, strict=True)
        }
        own = next(p for p in student.parameters() if p.is_floating_point())
        # half precision loses small steps
        self.to(own.device, torch.promote_types(own.dtype, torch.float32))

    def collect(self, model: nn.Module, side: str) -> Any:
        """Within it, a forward pass of the model fills the dictionary it yields.

        side: "student" or "teacher".

        model: as given to `prepare`; ValueError for another, of other names, depth or widths, and
        for a wrapper (DDP, torch.compile, an adapter) put around it since.
        """
        if self.names is None or side not in self.names:
            raise ValueError(
                f"{type(self).__name__}: collect expects prepare(student, teacher) before it "
                f"and side 'student' or 'teacher', got {side!r}"
            )
        self._check_same(model, side)
        return tap(model, list(dict.fromkeys(self.names[side].values())))

    def _check_same(self, model, side):
        owner, seen = type(self).__name__, self.encoders[side]
        try:
            found = find_encoder(owner, model)
        except ValueError as error:  # what is around it may hide its config
            found = str(error).rpartition("; got ")[2]
        if found != seen:
            got = found if isinstance(found, str) else _said(found)
            raise ValueError(
                f"{owner}: collect: model must be the {side} that prepare saw, {_said(seen)}; "
                f"got {got}; expected it without a wrapper put around it since, "
                "or prepare(student, teacher) once more"
            )

    def forward(
        self,
        student_layers: dict[str, Tensor],
        teacher_layers: dict[str, Tensor],
        attention_mask: Tensor | None = None,
    ) -> Tensor:
        owner, sides = type(self).__name__, {"student": student_layers, "teacher": teacher_layers}
        if (
            self.names is None
            or self.encoders is None
            or any(not set(self.names[side].values()) <= set(sides[side]) for side in sides)
        ):
            raise ValueError(
                f"{owner}: student_layers and teacher_layers "
                "must be what collect(model, side) yields, filled by a forward pass; "
                f"got {sorted(student_layers)} and {sorted(teacher_layers)}"
            )
        sides = {
            side: {
                key: self.encoders[side].own(key[0], sides[side][name])
                for key, name in self.names[side].items()
            }
            for side in sides
        }
        first = next(iter(sides["student"].values()))
        mask = first.new_ones(first.shape[:2]) if attention_mask is None else attention_mask
        for side, layers in sides.items():
            for x in layers.values():
                if x.ndim != 3 or mask.shape != x.shape[:2]:
                    raise ValueError(
                        f"{owner}: {side}_layers must be (B, L, H) and attention_mask (B, L), "
                        f"got {tuple(x.shape)} and {tuple(mask.shape)}"
                    )
        mask = mask.bool()

        def real(x):  # padding may hold anything, NaN included
            return torch.where(mask[..., None], x if x.dtype == torch.float64 else x.float(), 0.0)

        with torch.autocast(mask.device.type, enabled=False):
            return self.rows(
                {key: real(x) for key, x in sides["student"].items()},
                {key: real(x.detach()) for key, x in sides["teacher"].items()},
                mask,
            )


def _weights(name, **weights):
    for key, weight in weights.items():
        number(name, key, weight, low=0)
    if not any(weights.values()):
        raise ValueError(f"{name}: one of {', '.join(weights)} must be above 0")
    return weights


class LayerMap(EncoderLoss):
    """TinyBERT: blocks of the student attend and answer as those of the teacher they map to.

        Σ_(s, t) [attention · 1/h Σ_i MSE(A_i^s, A_i^t) + hidden · MSE(H^s W_h, H^t)]
        + embedding · MSE(E^S W_e, E^T)

    A_i = Q_i K_iᵀ / √d_k of head i, before the softmax; H a block's output, E that of the
    embeddings. pairs: (student block, teacher block), from 0. A weight of 0 leaves its term out.
    project: learn W_h, one for all pairs, and W_e, without bias; between equal widths they start as
    the identity. Every mean runs over real tokens (the authors' code has one matrix for both, with
    a bias, and counts padding). `prepare` raises ValueError for blocks that aren't there, numbers
    of heads that differ (attention), and widths that differ (project=False). Decoders take it with
    attention=0 where they rotate queries and keys by position (Llama, Qwen), else by the scores
    behind a position (GPT-2). Source: Jiao et al. 2020, eq. 7 to 9, summed as in eq. 6 with λ = 1.

    >>> import torch
    >>> from transformers import BertConfig, BertModel
    >>> sizes = dict(vocab_size=9, num_attention_heads=2, intermediate_size=8)
    >>> teacher = BertModel(BertConfig(hidden_size=16, num_hidden_layers=4, **sizes))
    >>> student = BertModel(BertConfig(hidden_size=8, num_hidden_layers=2, **sizes))
    >>> loss, ids = LayerMap([(0, 1), (1, 3)]), torch.ones(5, 7, dtype=torch.long)
    >>> loss.prepare(student, teacher)
    >>> with loss.collect(student, "student") as mine, loss.collect(teacher, "teacher") as theirs:
    ...     answers = student(ids), teacher(ids)
    >>> loss(mine, theirs, torch.ones_like(ids)).shape
    torch.Size([5])
    """

    def __init__(
        self,
        pairs: Sequence[tuple],
        hidden: float = 1.0,
        attention: float = 1.0,
        embedding: float = 1.0,
        project: bool = True,
    ) -> None:
        super().__init__()
        expected = "(student block, teacher block), as in [(0, 1)]"
        pairs = [
            tuple(pair) if isinstance(pair, (tuple, list)) else pair
            for pair in listed("LayerMap", "pairs", pairs, expected)
        ]
        if not pairs or any(
            not isinstance(p, tuple) or len(p) != 2 or not all(isinstance(i, int) for i in p)
            for p in pairs
        ):
            raise ValueError(f"LayerMap: pairs must be {expected}, got {pairs!r}")
        one_of("LayerMap", "project", project, [True, False])
        self.weights = _weights("LayerMap", attention=attention, hidden=hidden, embedding=embedding)
        self.pairs, self.project, self.projectors = pairs, project, nn.ModuleDict()

    def fit(self, student: Encoder, teacher: Encoder) -> list:
        """The layers of both sides; makes the projectors for their widths."""
        columns = list(zip(*self.pairs, strict=True))
        self._check_fit(student, teacher, columns)
        self.heads, self.causal = student.heads, student.causal
        widths = [(student.width, teacher.width), (student.embedding, teacher.embedding)]
        for part, (s, t) in zip(("hidden", "embedding"), widths, strict=True):
            if self.weights[part]:
                self._bridge(part, s, t)
        parts = [
            part
            for part, weight in [("query", "attention"), ("key", "attention"), ("hidden", "hidden")]
            if self.weights[weight]
        ]
        embedding = [("embedding", 0)] if self.weights["embedding"] else []
        return [[(part, i) for i in blocks for part in parts] + embedding for blocks in columns]

    def _check_fit(self, student, teacher, columns):
        """The errors for blocks that aren't there, and for attention that can't be compared."""
        sides = [("student", student), ("teacher", teacher)]
        for (side, encoder), blocks in zip(sides, columns, strict=True):
            if wrong := [i for i in blocks if not 0 <= i < len(encoder.blocks)]:
                raise ValueError(
                    f"LayerMap: pairs {self.pairs} name blocks {wrong} of the {side}, "
                    f"which has 0 to {len(encoder.blocks) - 1}"
                )
        if self.weights["attention"] and student.heads != teacher.heads:
            raise ValueError(
                "LayerMap: attention compares head by head, "
                f"got a student with {student.heads} heads and a teacher with {teacher.heads}; "
                "expected equal numbers, or attention=0, or Relations"
            )
        for side, encoder in sides:
            if self.weights["attention"] and (encoder.rotary or encoder.value != encoder.width):
                raise ValueError(
                    f"LayerMap: attention compares queries with keys, which the {side} rotates by "
                    "position or shares between heads after it has made them; expected attention=0"
                )

    def _bridge(self, part, s, t):
        """Learn what brings the student's width s to the teacher's t; without, both are one."""
        if self.project:
            bridge = nn.Linear(s, t, bias=False)
            if s == t:
                nn.init.eye_(bridge.weight)  # so that a copy of the teacher starts at 0
            self.projectors[part] = bridge
        elif s != t:
            raise ValueError(
                f"LayerMap: {part} compares layers of one width, got a student with {s} "
                f"and a teacher with {t}; expected project=True, or {part}=0"
            )

    def _squares(self, part, student, teacher, mask):
        if part in self.projectors:
            student = F.linear(student, self.projectors[part].weight.to(student.dtype))
        return self.weights[part] * mean_rows((student - teacher).square(), mask[..., None])

    def rows(self, student: dict, teacher: dict, mask: Tensor) -> Tensor:
        """The loss a sentence, (B,)."""
        both = seen(mask, self.causal) & mask[:, None, :, None]
        loss = torch.zeros((), device=mask.device)
        for i, j in self.pairs:
            if self.weights["attention"]:
                a_s, a_t = (
                    attention_scores(side["query", b], side["key", b], self.heads)
                    for side, b in [(student, i), (teacher, j)]
                )
                loss = loss + self.weights["attention"] * mean_rows((a_s - a_t).square(), both)
            if self.weights["hidden"]:
                loss = loss + self._squares(
                    "hidden", student["hidden", i], teacher["hidden", j], mask
                )
        if self.weights["embedding"]:
            loss = loss + self._squares(
                "embedding", student["embedding", 0], teacher["embedding", 0], mask
            )
        return loss


class Relations(EncoderLoss):
    """MiniLM: the student's tokens relate as the teacher's, in one block; of any width.

        query_key · KL(R(Q, K)) + value · KL(R(V, V)),   R(A, B) = softmax(A Bᵀ / √d)
        KL(R) = 1 / (heads · L) Σ_head Σ_position KL(R^teacher ‖ R^student)

    R is taken a head and a position, d = width / heads. student_layer, teacher_layer: blocks, from
    0, or from the end as −1. heads: what each width is cut into, so that the models may have
    different numbers of heads; None takes the teacher's. No layer map, no projector. A weight of 0
    leaves its term out. Padding counts neither as a position nor as what it relates to; in a
    decoder a position relates to itself and those before it. Where queries and keys are rotated by
    position (Llama, Qwen) query_key must be 0; values are as wide as the heads that hold them.
    `prepare` raises ValueError for blocks that aren't there and for heads that don't divide both
    widths. Sources: Wang et al. 2020 (MiniLM),
    sections 3.1 and 3.2; Wang et al. 2021 (MiniLMv2), for the relation heads.

    >>> import torch
    >>> from transformers import BertConfig, BertModel
    >>> sizes = dict(vocab_size=9, num_hidden_layers=2, intermediate_size=8)
    >>> teacher = BertModel(BertConfig(hidden_size=16, num_attention_heads=4, **sizes))
    >>> student = BertModel(BertConfig(hidden_size=12, num_attention_heads=3, **sizes))
    >>> loss, ids = Relations(heads=2), torch.ones(5, 7, dtype=torch.long)
    >>> loss.prepare(student, teacher)
    >>> with loss.collect(student, "student") as mine, loss.collect(teacher, "teacher") as theirs:
    ...     answers = student(ids), teacher(ids)
    >>> loss(mine, theirs, torch.ones_like(ids)).shape
    torch.Size([5])
    """

    def __init__(
        self,
        student_layer: int = -1,
        teacher_layer: int = -1,
        heads: int | None = None,
        query_key: float = 1.0,
        value: float = 1.0,
    ) -> None:
        super().__init__()
        heads = heads if heads is None else whole("Relations", "heads", heads, least=1)
        self.weights = _weights("Relations", query_key=query_key, value=value)
        self.layers, self.heads = (student_layer, teacher_layer), heads

    def fit(self, student: Encoder, teacher: Encoder) -> list:
        """The layers of both sides."""
        for side, encoder, layer in zip(
            ("student", "teacher"), (student, teacher), self.layers, strict=True
        ):
            n = len(encoder.blocks)
            if not isinstance(layer, int) or not -n <= layer < n:
                raise ValueError(
                    f"Relations: {side}_layer must be a block of the {side}, {-n} to {n - 1}, "
                    f"got {layer}"
                )
        for side, encoder in (("student", student), ("teacher", teacher)):
            if self.weights["query_key"] and (encoder.rotary or encoder.value != encoder.width):
                raise ValueError(
                    f"Relations: query_key relates queries to keys, which the {side} rotates by "
                    "position or shares between heads after it has made them; expected query_key=0"
                )
        self.relation_heads, self.causal = self.heads or teacher.heads, student.causal
        if student.value % self.relation_heads or teacher.value % self.relation_heads:
            raise ValueError(
                f"Relations: heads must divide the widths of student ({student.value}) "
                f"and teacher ({teacher.value}), got {self.relation_heads}"
            )
        parts = [
            part
            for part, weight in [("query", "query_key"), ("key", "query_key"), ("value", "value")]
            if self.weights[weight]
        ]
        return [[(part, layer) for part in parts] for layer in self.layers]

    def rows(self, student: dict, teacher: dict, mask: Tensor) -> Tensor:
        """The loss a sentence, (B,)."""
        loss = torch.zeros((), device=mask.device)
        for weight, a, b in [
            (self.weights["query_key"], "query", "key"),
            (self.weights["value"], "value", "value"),
        ]:
            if weight:
                scores = [
                    attention_scores(side[a, i], side[b, i], self.relation_heads)
                    for side, i in zip((student, teacher), self.layers, strict=True)
                ]
                before = seen(mask, self.causal)
                log_q, log_p = (log_softmax(z.masked_fill(~before, FLOOR)) for z in scores)
                kl = reduce_rows("Relations", kl_rows(log_p, log_q), reduction="rows")
                loss = loss + weight * mean_rows(kl, mask[:, None])
        return loss
