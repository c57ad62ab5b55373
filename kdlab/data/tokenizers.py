"""Tokenizers: is it the same one, and where do two of them cut a text alike?"""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any

from kdlab.base.arguments import instance, listed

# texts on which tokenizers of one size part: blanks, digits, capitals, accents, scripts, bytes,
# code, control tokens
PROBES = (
    "",
    " ",
    "The cat sat.",
    " leading and  double  blanks ",
    "one\ntwo\r\n\n\tthree\u00a0four\u200b",
    "0 12 345 6789 1,000,000 3.14159",
    "HELLO World iPhone",
    "don't WE'LL I'm",
    "naïve ÅNGSTRÖM ß",
    "e\u0301 and é, ﬁ and fi, ² and 2",
    "日本語 中文 한국어 العربية हिन्दी Ελληνικά",
    "🙂 👩\u200d👧 🇬🇧",
    "\x00\x07\x7f\ufeff",
    "def f(x):\n    return {'a': x[1:-1], \"b\": 0x1F} != x**2",
    "<s> </s> <unk> <|endoftext|> [CLS] [MASK]",
    "a" * 40 + "-" * 40,
)


@dataclass(frozen=True)
class SameTokenizer:
    """The answer of `same_tokenizer`: true or false, with a sentence in `why` for each difference.

    vocab_size: the width of the logits without padding, one above the largest id of the first
    tokenizer.

    >>> print(SameTokenizer((), 512))
    same tokenizer, vocabulary of 512
    """

    why: tuple
    vocab_size: int

    def __bool__(self):
        return not self.why

    def __str__(self):
        return (
            "\n- ".join(["different tokenizers", *self.why])
            if self.why
            else (f"same tokenizer, vocabulary of {self.vocab_size}")
        )


def same_tokenizer(a: Any, b: Any, probes: Sequence[str] | None = None) -> SameTokenizer:
    """Does each id mean the same in both, and is any text cut alike? → `SameTokenizer`.

    a, b: tokenizers of transformers; probes: texts to encode, by default `PROBES` and the text of
    each token. Compares the number of tokens, the special tokens (string and id), every token's id,
    and the encodings of the probes: two tokenizers of one size may share nothing else, and with one
    vocabulary may still cut otherwise. Left out: the padding token, which no loss counts, and the
    width of the models, which may be padded (`mask_padding`). Raises TypeError for what is no
    tokenizer.

    >>> from tokenizers import Tokenizer, models
    >>> from transformers import PreTrainedTokenizerFast as Fast
    >>> bpe = lambda x, y: Tokenizer(models.BPE({x: 0, y: 1}, []))
    >>> a, b = (Fast(tokenizer_object=bpe(*names)) for names in ("xy", "yx"))
    >>> bool(same_tokenizer(a, a))
    True
    >>> print(same_tokenizer(a, b, probes=["xxy"]))
    different tokenizers
    - tokens with another id: 2, such as 'x' (0 and 1)
    - probes encoded otherwise: 1 of 1, such as 'xxy' ([0, 0, 1] and [1, 1, 0])
    """
    for key, one in [("a", a), ("b", b)]:
        if not (hasattr(one, "get_vocab") and hasattr(one, "special_tokens_map")):
            raise TypeError(
                f"same_tokenizer: {key} must be a tokenizer of transformers, "
                f"got {type(one).__name__}"
            )
    if probes is not None:
        probes = listed("same_tokenizer", "probes", probes, "a list of texts")
        for probe in probes:
            instance("same_tokenizer", "probes", probe, str, "a list of texts")
    (ids, special), (ids_b, special_b) = ((t.get_vocab(), _special(t)) for t in (a, b))
    why = [f"number of tokens: {len(ids)} and {len(ids_b)}"] if len(ids) != len(ids_b) else []
    why += [
        f"special tokens: {name} is {special.get(name)} and {special_b.get(name)}"
        for name in sorted(special.keys() | special_b.keys())
        if special.get(name) != special_b.get(name)
    ]
    if moved := sorted((w for w in ids.keys() & ids_b.keys() if ids[w] != ids_b[w]), key=ids.get):
        w = moved[0]
        why.append(f"tokens with another id: {len(moved)}, such as {w!r} ({ids[w]} and {ids_b[w]})")
    for key, known, other in [("a", ids, ids_b), ("b", ids_b, ids)]:
        if alone := sorted(known.keys() - other.keys(), key=known.get):
            why.append(
                f"tokens in {key} alone: {len(alone)}, such as {alone[0]!r} ({known[alone[0]]})"
            )
    probes = (
        [*PROBES, *(a.convert_tokens_to_string([w]) for w in ids)] if probes is None else probes
    )
    encoded = zip(probes, *(t(probes)["input_ids"] if probes else [] for t in (a, b)), strict=True)
    if parted := [row for row in encoded if row[1] != row[2]]:
        text, here, there = parted[0]
        why.append(
            "probes encoded otherwise: "
            f"{len(parted)} of {len(probes)}, such as {text!r} ({here} and {there})"
        )
    return SameTokenizer(tuple(why), max(ids.values()) + 1)


def _special(tokenizer):
    return {
        name: (token, tokenizer.convert_tokens_to_ids(token))
        for name, token in tokenizer.special_tokens_map.items()
        if name != "pad_token"
    }


def align(student_offsets: Any, teacher_offsets: Any) -> list[tuple[list[int], list[int]]]:
    """Spans of a text that both tokenizers close at the same character.

    Returns [(student positions, teacher positions)].

    offsets: (start, end) of each token, as from `tokenizer(text, return_offsets_mapping=True)`. A
    token without text (a special token), or after the last common end, belongs to no span. Once a
    span is read both models have seen the same text, so only at its last tokens do they predict the
    same thing; that is where `uld` compares them:

        at_s, at_t = zip(*[(s[-1], t[-1]) for s, t in align(…)])
        uld(student_logits[[*at_s]], teacher_logits[[*at_t]])

    Source: Minixhofer, Vulić, Ponti 2025 (aligned chunks of tokens).

    >>> align([(0, 2), (2, 5), (5, 9)], [(0, 5), (5, 7), (7, 9)])
    [([0, 1], [0]), ([2], [1, 2])]
    """
    given = {"student_offsets": student_offsets, "teacher_offsets": teacher_offsets}
    sides = [
        [(i, end) for i, (start, end) in enumerate(_offsets(key, o)) if end > start]
        for key, o in given.items()
    ]
    ends = sorted({end for _, end in sides[0]} & {end for _, end in sides[1]})
    spans: list[tuple[list[int], list[int]]] = [([], []) for _ in ends]
    for side, tokens in enumerate(sides):
        for i, end in tokens:
            # the bytes of one character are tokens with one end: they stay together
            if (span := bisect_left(ends, end)) < len(ends):
                spans[span][side].append(i)
    return spans


def _offsets(key, offsets):
    """(start, end) of each token, as whole numbers."""
    expected = "a list of (start, end), whole numbers"
    rows = offsets.tolist() if getattr(offsets, "ndim", 0) == 2 else offsets
    found = []
    for row in listed("align", key, rows, expected):
        pair = list(row) if isinstance(row, (tuple, list)) else [row]
        if len(pair) != 2 or not all(isinstance(end, Integral) for end in pair):
            raise TypeError(f"align: {key} must be {expected}, got one of {row!r:.40}")
        found.append(pair)
    return found
