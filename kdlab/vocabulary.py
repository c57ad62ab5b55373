"""Tokenizers: is it the same one, vocabularies padded to other widths, and a loss for those that differ."""

from bisect import bisect_left
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from .arguments import fits, instance, listed, logits
from .divergences import check_logits, check_mask, check_temperature, log_softmax, reduce_rows

# texts on which tokenizers of one size part: blanks, digits, capitals, accents, scripts, bytes, code, control tokens
PROBES = ("", " ", "The cat sat.", " leading and  double  blanks ", "one\ntwo\r\n\n\tthree\u00a0four\u200b",
          "0 12 345 6789 1,000,000 3.14159", "HELLO World iPhone", "don't WE'LL I'm", "naïve ÅNGSTRÖM ß",
          "e\u0301 and é, ﬁ and fi, ² and 2", "日本語 中文 한국어 العربية हिन्दी Ελληνικά", "🙂 👩\u200d👧 🇬🇧",
          "\x00\x07\x7f\ufeff",           "def f(x):\n    return {'a': x[1:-1], \"b\": 0x1F} != x**2",
          "<s> </s> <unk> <|endoftext|> [CLS] [MASK]", "a" * 40 + "-" * 40)


@dataclass(frozen=True)
class SameTokenizer:
    """The answer of `same_tokenizer`: true or false, with a sentence in `why` for each difference.

    vocab_size: the width of the logits without padding, one above the largest id of the first tokenizer.

    >>> print(SameTokenizer((), 512))
    same tokenizer, vocabulary of 512
    """

    why: tuple
    vocab_size: int

    def __bool__(self):
        return not self.why

    def __str__(self):
        return "\n- ".join(["different tokenizers", *self.why]) if self.why else (
            f"same tokenizer, vocabulary of {self.vocab_size}")


def same_tokenizer(a, b, probes=None):
    """Does each id mean the same token in both, and is any text cut alike? → `SameTokenizer`, true or false.

    a, b: tokenizers of transformers; probes: texts to encode, by default `PROBES` and the text of each token. Compares
    the number of tokens, the special tokens (string and id), every token's id, and the encodings of the probes: two
    tokenizers of one size may share nothing else, and with one vocabulary may still cut otherwise. Left out: the
    padding token, which no loss counts, and the width of the models, which may be padded (`mask_padding`). Raises
    TypeError for what is no tokenizer.

    >>> from tokenizers import Tokenizer, models
    >>> from transformers import PreTrainedTokenizerFast as Fast
    >>> a, b = (Fast(tokenizer_object=Tokenizer(models.BPE({x: 0, y: 1}, []))) for x, y in ["xy", "yx"])
    >>> bool(same_tokenizer(a, a))
    True
    >>> print(same_tokenizer(a, b, probes=["xxy"]))
    different tokenizers
    - tokens with another id: 2, such as 'x' (0 and 1)
    - probes encoded otherwise: 1 of 1, such as 'xxy' ([0, 0, 1] and [1, 1, 0])
    """
    for key, one in [("a", a), ("b", b)]:
        if not (hasattr(one, "get_vocab") and hasattr(one, "special_tokens_map")):
            raise TypeError(f"same_tokenizer: {key} must be a tokenizer of transformers, got {type(one).__name__}")
    if probes is not None:
        probes = listed("same_tokenizer", "probes", probes, "a list of texts")
        for probe in probes:
            instance("same_tokenizer", "probes", probe, str, "a list of texts")
    (ids, special), (ids_b, special_b) = ((t.get_vocab(), _special(t)) for t in (a, b))
    why = [f"number of tokens: {len(ids)} and {len(ids_b)}"] if len(ids) != len(ids_b) else []
    why += [f"special tokens: {name} is {special.get(name)} and {special_b.get(name)}"
            for name in sorted(special.keys() | special_b.keys()) if special.get(name) != special_b.get(name)]
    if moved := sorted((w for w in ids.keys() & ids_b.keys() if ids[w] != ids_b[w]), key=ids.get):
        w = moved[0]
        why.append(f"tokens with another id: {len(moved)}, such as {w!r} ({ids[w]} and {ids_b[w]})")
    for key, known, other in [("a", ids, ids_b), ("b", ids_b, ids)]:
        if alone := sorted(known.keys() - other.keys(), key=known.get):
            why.append(f"tokens in {key} alone: {len(alone)}, such as {alone[0]!r} ({known[alone[0]]})")
    probes = [*PROBES, *(a.convert_tokens_to_string([w]) for w in ids)] if probes is None else probes
    encoded = zip(probes, *(t(probes)["input_ids"] if probes else [] for t in (a, b)), strict=True)
    if parted := [row for row in encoded if row[1] != row[2]]:
        text, here, there = parted[0]
        why.append(f"probes encoded otherwise: {len(parted)} of {len(probes)}, such as {text!r} ({here} and {there})")
    return SameTokenizer(tuple(why), max(ids.values()) + 1)


def _special(tokenizer):
    return {name: (token, tokenizer.convert_tokens_to_ids(token))
            for name, token in tokenizer.special_tokens_map.items() if name != "pad_token"}


def mask_padding(student_logits, teacher_logits, vocab_size):
    """Both logits without the columns that stand for no token: (..., V_s), (..., V_t) → (..., V), (..., V).

    Embeddings are padded to round widths (Qwen2.5: 151,936 or 152,064 columns for one tokenizer of 151,665 tokens).
    Cutting gives the padding probability exactly 0 and no gradient, as a logit of −inf would; filling the narrower
    side up with logits of 0 would give it a share of the mass. vocab_size: the tokens that exist, as in
    `same_tokenizer(a, b).vocab_size`. Raises ValueError where a side is narrower.

    >>> s, t = mask_padding(torch.zeros(2, 8), torch.zeros(2, 6), 5)
    >>> s.shape, t.shape
    (torch.Size([2, 5]), torch.Size([2, 5]))
    """
    for key, z in [("student_logits", student_logits), ("teacher_logits", teacher_logits)]:
        logits("mask_padding", key, z, "(..., V)")
    widths = student_logits.shape[-1], teacher_logits.shape[-1]
    if type(vocab_size) is not int or not 1 <= vocab_size <= min(widths):
        raise ValueError(f"mask_padding: vocab_size must be a whole number from 1 to the narrower of the widths "
                         f"{widths}, got {vocab_size!r}")
    return student_logits[..., :vocab_size], teacher_logits[..., :vocab_size]


def uld(student_logits, teacher_logits, student_mask=None, teacher_mask=None, temperature=1.0, reduction="mean"):
    """Universal logit distillation: how far apart two distributions are whose tokens have nothing in common.

        Σ_i |p_(i) − q_(i)|,   p_(1) ≥ p_(2) ≥ …,   p, q = softmax(logits / T)

    The cheapest way to pair the tokens of two vocabularies one to one, where a pair costs the difference of its
    probabilities; the smaller vocabulary is filled up with probability 0. In [0, 2). It sees how sure the teacher
    is, never of what: a student as sure of nonsense has loss 0, so it needs the text's own labels beside it.

    student_logits (..., L_s, V_s), teacher_logits (..., L_t, V_t): the k-th position that counts of the one faces
    the k-th of the other, and what is left of the longer is cut. That is the paper's alignment; it drifts as soon
    as one tokenizer cuts finer (`align` finds better pairs). student_mask (..., L_s), teacher_mask (..., L_t):
    true where a position counts. Returns the mean over all pairs (the authors' code: over texts, of each text's
    mean), or with reduction="rows" (..., min(L_s, L_t)), 0 where there is no pair. Raises ValueError or TypeError
    as `forward_kl`.
    Source: Boizard, El Haddad, Hudelot, Colombo 2024, section 3.

    >>> sure, unsure = torch.tensor([[0.0, 99.0, 0.0]]), torch.zeros(1, 2)
    >>> [round(uld(sure, z).item(), 4) for z in (unsure, torch.tensor([[99.0, 0.0]]))]
    [1.0, 0.0]
    """
    sides = [("student", student_logits, student_mask), ("teacher", teacher_logits, teacher_mask)]
    for key, z, mask in sides:
        if not torch.is_tensor(z) or not z.is_floating_point() or z.ndim < 2:
            came = (z.dtype, tuple(z.shape)) if torch.is_tensor(z) else type(z).__name__
            raise TypeError(f"uld: {key}_logits must be a floating-point tensor (..., L, V), got {came}")
        if mask is not None:
            check_mask("uld", f"{key}_mask", mask, z.shape[:-1])
    if student_logits.shape[:-2] != teacher_logits.shape[:-2]:
        raise ValueError(f"uld: student_logits {tuple(student_logits.shape)} and teacher_logits "
                         f"{tuple(teacher_logits.shape)} must hold as many texts")
    temperature = check_temperature("uld", temperature)
    L, V = min(z.shape[-2] for _, z, _ in sides), max(z.shape[-1] for _, z, _ in sides)
    (student_logits, mask), (teacher_logits, other) = (_in_order(z, mask, L, V) for _, z, mask in sides)
    pairs = mask & other
    fits("uld", "temperature", temperature, student_logits.shape)
    both = check_logits("uld", student_logits, teacher_logits, pairs)
    q, p = (log_softmax(z, temperature).exp().sort(-1, descending=True).values for z in both)
    return reduce_rows("uld", (p - q).abs().sum(-1), pairs, reduction)


def _in_order(logits, mask, length, width):
    """The first positions that count, and whether each does: (..., length, width), (..., length)."""
    mask = torch.ones_like(logits[..., 0], dtype=torch.bool) if mask is None else mask.bool()
    first = (~mask).byte().argsort(dim=-1, stable=True)[..., :length]
    kept = logits.gather(-2, first[..., None].expand(*first.shape, logits.shape[-1]))
    return F.pad(kept, (0, width - logits.shape[-1]), value=-torch.inf), mask.gather(-1, first)


def align(student_offsets, teacher_offsets):
    """Spans of one text that both tokenizers close at the same character → [(student positions, teacher positions)].

    offsets: (start, end) of each token, as from `tokenizer(text, return_offsets_mapping=True)`. A token without text
    (a special token), or after the last common end, belongs to no span. Once a span is read both models have seen
    the same text, so only at its last tokens do they predict the same thing; that is where `uld` compares them:

        at_s, at_t = zip(*[(s[-1], t[-1]) for s, t in align(…)]);  uld(student_logits[[*at_s]], teacher_logits[[*at_t]])

    Source: Minixhofer, Vulić, Ponti 2025 (aligned chunks of tokens).

    >>> align([(0, 2), (2, 5), (5, 9)], [(0, 5), (5, 7), (7, 9)])
    [([0, 1], [0]), ([2], [1, 2])]
    """
    sides = [[(i, end) for i, (start, end) in enumerate(o) if end > start] for o in (student_offsets, teacher_offsets)]
    ends = sorted({end for _, end in sides[0]} & {end for _, end in sides[1]})
    spans = [([], []) for _ in ends]
    for side, tokens in enumerate(sides):
        for i, end in tokens:
            # the bytes of one character are tokens with one end: they stay together
            if (span := bisect_left(ends, end)) < len(ends):
                spans[span][side].append(i)
    return spans
