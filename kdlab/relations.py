"""What an encoder's blocks teach: mapped block to block (TinyBERT), or only how tokens relate (MiniLM)."""

import torch.nn.functional as F
from torch import nn

from .arguments import listed, number, one_of, whole
from .divergences import FLOOR, kl_rows, log_softmax, reduce_rows
from .encoders import EncoderLoss, attention_scores, mean_rows


def _weights(name, **weights):
    for key, weight in weights.items():
        number(name, key, weight, low=0)
    if not any(weights.values()):
        raise ValueError(f"{name}: one of {', '.join(weights)} must be above 0")
    return weights


class LayerMap(EncoderLoss):
    """TinyBERT: blocks of the student attend and answer as the blocks of the teacher that they are mapped to.

        Σ_(s, t) [attention · 1/h Σ_i MSE(A_i^s, A_i^t) + hidden · MSE(H^s W_h, H^t)] + embedding · MSE(E^S W_e, E^T)

    A_i = Q_i K_iᵀ / √d_k of head i, before the softmax; H a block's output, E that of the embeddings. pairs: (student
    block, teacher block), from 0. A weight of 0 leaves its term out. project: learn W_h, one for all pairs, and W_e,
    without bias; between equal widths they start as the identity. Every mean runs over real tokens (the authors'
    code has one matrix for both, with a bias, and counts padding). `prepare` raises ValueError for blocks that
    aren't there, numbers of heads that differ (attention), and widths that differ (project=False).
    Source: Jiao et al. 2020, eq. 7 to 9, summed as in eq. 6 with λ = 1.

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

    def __init__(self, pairs, hidden=1.0, attention=1.0, embedding=1.0, project=True):
        super().__init__()
        expected = "(student block, teacher block), as in [(0, 1)]"
        pairs = [tuple(pair) if isinstance(pair, (tuple, list)) else pair
                 for pair in listed("LayerMap", "pairs", pairs, expected)]
        if not pairs or any(not isinstance(p, tuple) or len(p) != 2 or not all(isinstance(i, int) for i in p)
                            for p in pairs):
            raise ValueError(f"LayerMap: pairs must be {expected}, got {pairs!r}")
        one_of("LayerMap", "project", project, [True, False])
        self.weights = _weights("LayerMap", attention=attention, hidden=hidden, embedding=embedding)
        self.pairs, self.project, self.projectors = pairs, project, nn.ModuleDict()

    def fit(self, student, teacher):
        """The layers of both sides; makes the projectors for their widths."""
        columns = list(zip(*self.pairs, strict=True))
        for side, encoder, blocks in zip(("student", "teacher"), (student, teacher), columns, strict=True):
            if wrong := [i for i in blocks if not 0 <= i < len(encoder.blocks)]:
                raise ValueError(f"LayerMap: pairs {self.pairs} name blocks {wrong} of the {side}, "
                                 f"which has 0 to {len(encoder.blocks) - 1}")
        if self.weights["attention"] and student.heads != teacher.heads:
            raise ValueError(f"LayerMap: attention compares head by head, got a student with {student.heads} heads and "
                             f"a teacher with {teacher.heads}; expected equal numbers, or attention=0, or Relations")
        self.heads = student.heads
        for part, s, t in [("hidden", student.width, teacher.width),
                           ("embedding", student.embedding, teacher.embedding)]:
            if self.weights[part] and self.project:
                self.projectors[part] = nn.Linear(s, t, bias=False)
                if s == t:
                    nn.init.eye_(self.projectors[part].weight)  # so that a copy of the teacher starts at 0
            elif self.weights[part] and s != t:
                raise ValueError(f"LayerMap: {part} compares layers of one width, got a student with {s} and a teacher "
                                 f"with {t}; expected project=True, or {part}=0")
        parts = [part for part, weight in [("query", "attention"), ("key", "attention"), ("hidden", "hidden")]
                 if self.weights[weight]]
        embedding = [("embedding", 0)] if self.weights["embedding"] else []
        return [[(part, i) for i in blocks for part in parts] + embedding for blocks in columns]

    def _squares(self, part, student, teacher, mask):
        if part in self.projectors:
            student = F.linear(student, self.projectors[part].weight.to(student.dtype))
        return self.weights[part] * mean_rows((student - teacher).square(), mask[..., None])

    def rows(self, student, teacher, mask):
        """The loss a sentence, (B,)."""
        both, loss = mask[:, None, :, None] & mask[:, None, None, :], 0.0
        for i, j in self.pairs:
            if self.weights["attention"]:
                a_s, a_t = (attention_scores(side["query", b], side["key", b], self.heads)
                            for side, b in [(student, i), (teacher, j)])
                loss = loss + self.weights["attention"] * mean_rows((a_s - a_t).square(), both)
            if self.weights["hidden"]:
                loss = loss + self._squares("hidden", student["hidden", i], teacher["hidden", j], mask)
        if self.weights["embedding"]:
            loss = loss + self._squares("embedding", student["embedding", 0], teacher["embedding", 0], mask)
        return loss


class Relations(EncoderLoss):
    """MiniLM: tokens of the student relate to each other as those of the teacher, in one block; of any width.

        query_key · KL(R(Q, K)) + value · KL(R(V, V)),   R(A, B) = softmax(A Bᵀ / √d), a head and a position
        KL(R) = 1 / (heads · L) Σ_head Σ_position KL(R^teacher ‖ R^student)

    d = width / heads. student_layer, teacher_layer: blocks, from 0, or from the end as −1. heads: what each width is
    cut into, so that the models may have different numbers of heads; None takes the teacher's. No layer map, no
    projector. A weight of 0 leaves its term out. Padding counts neither as a position nor as what it relates to.
    `prepare` raises ValueError for blocks that aren't there and for heads that don't divide both widths.
    Sources: Wang et al. 2020 (MiniLM), sections 3.1 and 3.2; Wang et al. 2021 (MiniLMv2), for the relation heads.

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

    def __init__(self, student_layer=-1, teacher_layer=-1, heads=None, query_key=1.0, value=1.0):
        super().__init__()
        heads = heads if heads is None else whole("Relations", "heads", heads, least=1)
        self.weights = _weights("Relations", query_key=query_key, value=value)
        self.layers, self.heads = (student_layer, teacher_layer), heads

    def fit(self, student, teacher):
        """The layers of both sides."""
        for side, encoder, layer in zip(("student", "teacher"), (student, teacher), self.layers, strict=True):
            n = len(encoder.blocks)
            if not isinstance(layer, int) or not -n <= layer < n:
                raise ValueError(f"Relations: {side}_layer must be a block of the {side}, {-n} to {n - 1}, got {layer}")
        self.relation_heads = self.heads or teacher.heads
        if student.width % self.relation_heads or teacher.width % self.relation_heads:
            raise ValueError(f"Relations: heads must divide the widths of student ({student.width}) and teacher "
                             f"({teacher.width}), got {self.relation_heads}")
        parts = [part for part, weight in [("query", "query_key"), ("key", "query_key"), ("value", "value")]
                 if self.weights[weight]]
        return [[(part, layer) for part in parts] for layer in self.layers]

    def rows(self, student, teacher, mask):
        """The loss a sentence, (B,)."""
        loss = 0.0
        for weight, a, b in [(self.weights["query_key"], "query", "key"), (self.weights["value"], "value", "value")]:
            if weight:
                scores = [attention_scores(side[a, i], side[b, i], self.relation_heads)
                          for side, i in zip((student, teacher), self.layers, strict=True)]
                log_q, log_p = (log_softmax(z.masked_fill(~mask[:, None, None], FLOOR)) for z in scores)
                kl = reduce_rows("Relations", kl_rows(log_p, log_q), reduction="rows")
                loss = loss + weight * mean_rows(kl, mask[:, None])
        return loss
