"""Text that a model writes, a teacher's or the student's own, ready to be trained on."""

import math
from collections.abc import Sequence
from contextlib import contextmanager
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from kdlab.base import arguments
from kdlab.base.arguments import number, one_of, whole
from kdlab.base.lab import threads_for
from kdlab.base.wrapped import evaluating
from kdlab.data.token_rows import id_tensors, padded, padded_batch, token_rows
from kdlab.students.limits import check_ids, positions, reserved_positions, unwrapped


def completions(
    model: nn.Module,
    prompts: Any,
    max_new_tokens: int,
    temperature: float = 1.0,
    top_k: int = 0,
    num_beams: int = 1,
    eos: int | Sequence[int] | None = None,
    pad: int | None = None,
    seed: int = 0,
    batch: int = 32,
    top_p: float = 1.0,
) -> dict[str, Tensor]:
    """What a causal language model writes after each prompt, as a batch.

        y_t = argmax_v [z_t(v) / T − log E_v],   E_v ~ Exp(1)

    y_t is a draw from softmax(z_t / T). Returns {"input_ids", "attention_mask", "labels"}, each
    (B, L).

    prompts: B sequences of ids of any lengths, or a tokenizer's {"input_ids", "attention_mask"}
    padded on either side (without a mask all of it is read; lists of any lengths need no padding).
    A row is its prompt, what was written and then padding; labels are −100 except on what was
    written, of which the first end-of-text token is the last. temperature 0 is greedy, or the best
    of num_beams; top_k 0 and top_p 1 leave every token possible, below 1 the fewest of the
    likeliest that hold top_p of the softened probability (Holtzman and others 2020). eos: id or ids
    that end a text, by default those of the model's generation config, of which nothing else is
    used; () never ends. pad: the id that fills masked places. batch: prompts at a time; prompt i
    draws the same for a seed whatever the batch (up to rounding in the logits), and no global
    random state is used. The model answers in eval mode, with its mode restored. Raises ValueError
    where a prompt is empty, holds an unknown id or leaves no room for max_new_tokens within the
    model's `positions`, and for RoBERTa and its like, whose positions transformers' generate
    numbers wrongly. Source of the draw: the Gumbel-max trick (Maddison, Tarlow, Minka 2014).

    >>> from transformers import LlamaConfig, LlamaForCausalLM
    >>> sizes = dict(hidden_size=8, num_attention_heads=1, num_hidden_layers=1)
    >>> model = LlamaForCausalLM(LlamaConfig(vocab_size=16, **sizes))
    >>> written = completions(model, [[3, 4, 5], [6]], max_new_tokens=2, eos=())
    >>> (written["labels"] >= 0).int()
    tensor([[0, 0, 0, 1, 1],
            [0, 1, 1, 0, 0]], dtype=torch.int32)
    """
    number("completions", "temperature", temperature, low=0)
    whole("completions", "max_new_tokens", max_new_tokens, least=1)
    whole("completions", "top_k", top_k)
    number("completions", "top_p", top_p, above=0, high=1)
    whole("completions", "num_beams", num_beams, least=1)
    whole("completions", "seed", seed)
    whole("completions", "batch", batch, least=1)
    if num_beams > 1 and temperature:
        raise ValueError(
            f"completions: num_beams={num_beams} needs temperature=0, got {temperature!r}"
        )
    model = unwrapped("completions", model)
    rows = _prompts(model, prompts, max_new_tokens)
    eos, pad = _ends(model, *_given_ends("completions", eos, pad))
    texts = []
    with evaluating(model), threads_for(model), _plain(model):
        for start in range(0, len(rows), batch):
            part = rows[start : start + batch]
            places = range(start, start + len(part))
            draw = (
                [_draw(temperature, top_k, top_p, seed, places, model.device)]
                if temperature
                else []
            )
            texts += _written(model, part, max_new_tokens, num_beams, eos, draw)
    pairs = list(zip(rows, texts, strict=True))
    labels = [torch.cat([torch.full_like(row, -100), text]) for row, text in pairs]
    return padded_batch(list(map(torch.cat, pairs)), labels, pad, model.device)


def _written(model, prompts, max_new_tokens, num_beams, eos, draw):
    """What generate adds to each prompt, up to its end of text."""
    ids = padded(prompts, padding_side="left").to(model.device)
    mask = padded(list(map(torch.ones_like, prompts)), padding_side="left").to(model.device)
    found = model.generate(
        ids,
        attention_mask=mask,
        max_new_tokens=max_new_tokens,
        do_sample=False,
        num_beams=num_beams,
        eos_token_id=eos or None,
        pad_token_id=0,
        logits_processor=draw,
    )
    texts = []
    for text in found[:, ids.shape[1] :].tolist():
        # what generate writes behind the end goes, whatever its id
        end = next((i + 1 for i, token in enumerate(text) if token in eos), len(text))
        texts.append(torch.tensor(text[:end]))
    return texts


def as_dataset(batch):
    """The rows of `completions` without padding, as a `datasets.Dataset`; a collator pads again.

    Of a teacher's completions it is the data of sequence-level distillation, the mode approximated
    by temperature=0 with num_beams > 1. batch: {"input_ids", "attention_mask", "labels"}, each
    (B, L); without a mask all of it is real.
    Source: Kim and Rush 2016, section 3.2.

    >>> ids, mask, labels = torch.tensor([[[5, 6, 0]], [[1, 1, 0]], [[-100, 6, -100]]])
    >>> as_dataset({"input_ids": ids, "attention_mask": mask, "labels": labels})[0]
    {'input_ids': [5, 6], 'attention_mask': [1, 1], 'labels': [-100, 6]}
    """
    from datasets import Dataset

    rows = token_rows("as_dataset: batch", batch, "labels")
    return Dataset.from_dict(
        {
            "input_ids": [ids[real].tolist() for ids, real, _ in rows],
            "attention_mask": [[1] * int(real.sum()) for _, real, _ in rows],
            "labels": [labels[real].tolist() for _, real, labels in rows],
        }
    )


@runtime_checkable
class Draws(Protocol):
    """What `DistillationTrainer` asks of an on_policy that says how it draws, as `OnPolicy` does.

    Any function (student, batches, step) → batches is one too; it is only called. positions: how
    long a text may be, which the trainer sets. options: those of `completions`.
    """

    positions: int | None
    options: dict[str, Any]


class OnPolicy:
    """Batches of which a share of the responses is the student's own: GKD's mixture.

        u ~ Uniform(0, 1);   u < share: y ~ p_student(· | x),   otherwise the y of the data

    share: λ in [0, 1]; u is drawn once for each batch, or with per="row" once for each row, so that
    a batch holds texts of both kinds. A row's prompt x is what stands before its first label other
    than −100 (all of it where no label counts), or its first prompt_length tokens, as for plain
    text. max_new_tokens, temperature, top_k, top_p, eos, pad: as in `completions`. long_prompts:
    what becomes of a prompt that leaves no room for max_new_tokens: "error", a ValueError;
    "truncate", its last tokens that leave room are the prompt; "skip", the row stays as the data
    has it, and where every row does, the batch itself. Room: the student's `positions`, or the
    attribute `positions` where that is smaller, which `DistillationTrainer` sets for the teacher,
    who reads the same text.

    Called as on_policy(student, batches, step) with the micro-batches of one optimiser's step, each
    {"input_ids", "attention_mask", "labels"} (B, L) padded on either side (without a mask none of
    it is padding, without labels none counts) → a list in which some are new dictionaries of these
    three, padded on the right, whose labels cover what the student wrote and nothing else (of a
    skipped row: those of the data). Draws depend on seed, step and the batch's place in the list
    only. Source: Agarwal et al. 2024, algorithm 1.

    >>> batches = [{"input_ids": torch.tensor([[5, 6]])}]
    >>> OnPolicy(share=0.0, max_new_tokens=8)(None, batches, step=0)[0] is batches[0]
    True
    """

    def __init__(
        self,
        share: float,
        max_new_tokens: int,
        prompt_length: int | None = None,
        temperature: float = 1.0,
        eos: int | Sequence[int] | None = None,
        pad: int | None = None,
        seed: int = 0,
        long_prompts: str = "error",
        top_k: int = 0,
        top_p: float = 1.0,
        per: str = "batch",
    ) -> None:
        self.share = arguments.share("OnPolicy", "share", share)
        self.seed = whole("OnPolicy", "seed", seed)
        if prompt_length is not None:
            whole("OnPolicy", "prompt_length", prompt_length, least=1)
        self.prompt_length, self.positions = prompt_length, None
        options = ["error", "truncate", "skip"]
        self.long_prompts = one_of("OnPolicy", "long_prompts", long_prompts, options)
        self.per = one_of("OnPolicy", "per", per, ["batch", "row"])
        eos, pad = _given_ends("OnPolicy", eos, pad)
        self.options = {
            "max_new_tokens": whole("OnPolicy", "max_new_tokens", max_new_tokens, least=1),
            "temperature": number("OnPolicy", "temperature", temperature, low=0),
            "top_k": whole("OnPolicy", "top_k", top_k),
            "top_p": number("OnPolicy", "top_p", top_p, above=0, high=1),
            "eos": eos,
            "pad": pad,
        }

    def __call__(
        self, model: nn.Module, batches: list[dict[str, Tensor]], step: int
    ) -> list[dict[str, Tensor]]:
        mixed = []
        for index, batch in enumerate(batches):
            rng = np.random.default_rng((self.seed, step, index))
            count = len(batch["input_ids"]) if self.per == "row" else 1
            own = rng.random(count) < self.share
            if own.any():
                student = unwrapped("OnPolicy", model)
                batch = self._own(student, batch, own, int(rng.integers(2**63)))
            mixed.append(batch)
        return mixed

    def _own(self, model, batch, own, seed):
        """The batch with the student's text behind each prompt that is its own; else as it came."""
        rows, room = token_rows("OnPolicy: batch", batch), self._room(model)
        prompts = [
            self._prompt(i, *row, room) if own[i % len(own)] else None for i, row in enumerate(rows)
        ]
        answered = [i for i, prompt in enumerate(prompts) if prompt is not None]
        if not answered:
            return batch
        own = completions(
            model, [prompts[i] for i in answered], seed=seed, batch=len(answered), **self.options
        )
        for i, row in zip(answered, token_rows("OnPolicy: batch", own), strict=True):
            rows[i] = row
        device = batch["input_ids"].device
        _, pad = _ends(model, self.options["eos"], self.options["pad"])
        ids, labels = ([row[k][row[1]].to(device, torch.long) for row in rows] for k in (0, 2))
        return padded_batch(ids, labels, pad, device)

    def _room(self, model):
        """How many tokens a prompt may have so that max_new_tokens fit behind it, or infinity."""
        limits = [n for n in (positions(model), self.positions) if n is not None]
        limit, new = min(limits, default=math.inf), self.options["max_new_tokens"]
        if new >= limit:
            raise ValueError(
                f"OnPolicy: max_new_tokens must leave room for a prompt within the {limit} "
                f"positions of student and teacher, got {new}"
            )
        return limit - new

    def _prompt(self, i, ids, real, labels, room):
        """The prompt of row i, or None where the row is skipped."""
        counts = (labels[real] != -100).nonzero()
        length = self.prompt_length or (int(counts[0]) if len(counts) else len(labels))
        if length == 0:
            raise ValueError(
                f"OnPolicy: row {i} has no prompt before its first label; "
                "expected labels of −100 there, or prompt_length for plain text"
            )
        prompt = ids[real][:length]
        if len(prompt) <= room:
            return prompt
        if self.long_prompts == "error":
            new = self.options["max_new_tokens"]
            raise ValueError(
                f"OnPolicy: row {i} has a prompt of {len(prompt)} tokens, expected at most {room}, "
                f"so that max_new_tokens={new} fit within the {room + new} positions of student "
                "and teacher; or take long_prompts='truncate' or 'skip'"
            )
        return prompt[-room:] if self.long_prompts == "truncate" else None


def _given_ends(name, eos, pad):
    """eos as a list of ids and pad as an id; None where nothing was given."""
    if eos is not None:
        eos = eos.tolist() if hasattr(eos, "tolist") else eos
        ids = eos if isinstance(eos, (list, tuple, set, frozenset, range)) else [eos]
        eos = [whole(name, "eos", i) for i in ids]
    return eos, None if pad is None else whole(name, "pad", pad)


def _ends(model, eos, pad):
    """The ids that end a text, and the one that fills masked places."""
    own = model.generation_config
    eos = own.eos_token_id if eos is None else eos
    eos = [eos] if isinstance(eos, int) else list(eos or ())
    return eos, next(i for i in (pad, own.pad_token_id, *eos, 0) if i is not None)


def _prompts(model, prompts, max_new_tokens):
    if model.config.is_encoder_decoder:
        raise ValueError(
            f"completions: model must be a causal language model, got {type(model).__name__}"
        )
    if reserved := reserved_positions(model):
        raise ValueError(
            "completions: model must number its positions from 0, as transformers' generate does, "
            f"got {type(model).__name__}, whose first is {reserved}"
        )
    if hasattr(prompts, "keys"):
        columns = {k: prompts[k] for k in ("input_ids", "attention_mask") if k in prompts}
        prompts = [ids[real] for ids, real, _ in token_rows("completions: prompts", columns)]
    rows = [row.cpu() for row in id_tensors("completions: prompts", prompts)]
    if not rows:
        raise ValueError("completions: prompts must hold at least one prompt, got none")
    room = positions(model)
    for i, row in enumerate(rows):
        odd = row.is_floating_point() or row.is_complex() or row.dtype == torch.bool
        if row.ndim != 1 or not len(row) or odd:
            raise ValueError(
                f"completions: prompts[{i}] must be a non-empty sequence of token ids, "
                f"got {row.dtype} {tuple(row.shape)}"
            )
        if room is not None and len(row) + max_new_tokens > room:
            raise ValueError(
                f"completions: prompts[{i}] must leave room for max_new_tokens={max_new_tokens} "
                f"within the model's {room} positions, got {len(row)} tokens"
            )
    check_ids("completions: prompts", model, rows)
    return [row.long() for row in rows]


@contextmanager
def _plain(model):
    """The model without its generation config, whose top_p, say, would fill arguments left out."""
    from transformers import GenerationConfig

    # an adapter's generate writes its own into the model within: each gets back what it had
    kept = {m: m.generation_config for m in model.modules() if "generation_config" in vars(m)}
    for module in kept:
        module.generation_config = GenerationConfig()
    try:
        yield
    finally:
        for module, own in kept.items():
            module.generation_config = own


def _draw(temperature, top_k, top_p, seed, rows, device):
    """A logits processor after which argmax is a draw, each row's noise its own generator's."""
    seeds = [int(np.random.SeedSequence((seed, row)).generate_state(1)[0]) for row in rows]
    generators = [torch.Generator(device).manual_seed(s) for s in seeds]
    nucleus = None
    if top_p < 1:
        from transformers import TopPLogitsWarper

        nucleus = TopPLogitsWarper(top_p)

    def draw(input_ids, logits):
        if top_k:
            logits = logits.masked_fill(
                logits < logits.topk(min(top_k, logits.shape[-1])).values[:, -1:], -math.inf
            )
        logits = logits / temperature
        if nucleus is not None:
            logits = nucleus(input_ids, logits)
        noise = [
            torch.empty_like(z).exponential_(generator=g)
            for z, g in zip(logits, generators, strict=True)
        ]
        return logits - torch.stack(noise).log()

    return draw
