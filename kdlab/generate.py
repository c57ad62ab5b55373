"""Text that a model writes: a teacher's or the student's own, ready to be trained on; its diversity, its perplexity."""

import math
from contextlib import contextmanager
from functools import partial

import numpy as np
import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence

from . import arguments
from .arguments import instance, number, one_of, whole
from .lab import threads_for
from .objectives import cross_entropy_rows
from .tokens import next_token
from .wrapped import evaluating, inside

_padded = partial(pad_sequence, batch_first=True)


def completions(model, prompts, max_new_tokens, temperature=1.0, top_k=0, num_beams=1, eos=None, pad=None, seed=0,
                batch=32):
    """What a causal language model writes after each prompt → {"input_ids", "attention_mask", "labels"}, each (B, L).

        y_t = argmax_v [z_t(v) / T − log E_v],  E_v ~ Exp(1),   which is a draw from softmax(z_t / T)

    prompts: B sequences of ids of any lengths, or a tokenizer's {"input_ids", "attention_mask"}
    padded on either side (without a mask all of it is read; lists of any lengths need no padding).
    A row is its prompt, what was written and then padding; labels are −100 except on what was
    written, of which the first end-of-text token is the last. temperature 0 is greedy, or the best
    of num_beams; top_k 0 leaves every token possible. eos: id or ids that end a text, by default
    those of the model's generation config, of which nothing else is used; () never ends. pad: the
    id that fills masked places. batch: prompts at a time; prompt i draws the same for a seed
    whatever the batch (up to rounding in the logits), and no global random state is used. The model
    answers in eval mode, with its mode restored. Raises ValueError where a prompt is empty, holds
    an unknown id or leaves no room for max_new_tokens within the model's `positions`, and for
    RoBERTa and its like, whose positions transformers' generate numbers wrongly. Source of the
    draw: the Gumbel-max trick (Maddison, Tarlow, Minka 2014).

    >>> from transformers import LlamaConfig, LlamaForCausalLM
    >>> config = LlamaConfig(vocab_size=16, hidden_size=8, num_attention_heads=1, num_hidden_layers=1)
    >>> model = LlamaForCausalLM(config)
    >>> written = completions(model, [[3, 4, 5], [6]], max_new_tokens=2, eos=())
    >>> (written["labels"] >= 0).int()
    tensor([[0, 0, 0, 1, 1],
            [0, 1, 1, 0, 0]], dtype=torch.int32)
    """
    number("completions", "temperature", temperature, low=0)
    whole("completions", "max_new_tokens", max_new_tokens, least=1)
    whole("completions", "top_k", top_k)
    whole("completions", "num_beams", num_beams, least=1)
    whole("completions", "seed", seed)
    whole("completions", "batch", batch, least=1)
    if num_beams > 1 and temperature:
        raise ValueError(f"completions: num_beams={num_beams} needs temperature=0, got {temperature!r}")
    model = _unwrapped("completions", model)
    rows = _prompts(model, prompts, max_new_tokens)
    eos, pad = _ends(model, *_given_ends("completions", eos, pad))
    texts = []
    with evaluating(model), threads_for(model), _plain(model):
        for start in range(0, len(rows), batch):
            part = rows[start:start + batch]
            ids = _padded(part, padding_side="left").to(model.device)
            mask = _padded(list(map(torch.ones_like, part)), padding_side="left").to(model.device)
            draw = [_draw(temperature, top_k, seed, range(start, start + len(part)), ids.device)] if temperature else []
            found = model.generate(ids, attention_mask=mask, max_new_tokens=max_new_tokens, do_sample=False,
                                   num_beams=num_beams, eos_token_id=eos or None, pad_token_id=0,
                                   logits_processor=draw)
            # what generate writes behind the end goes, whatever its id
            for text in found[:, ids.shape[1]:].tolist():
                end = next((i + 1 for i, token in enumerate(text) if token in eos), len(text))
                texts.append(torch.tensor(text[:end]))
    pairs = list(zip(rows, texts, strict=True))
    labels = [torch.cat([torch.full_like(row, -100), text]) for row, text in pairs]
    return _batch(list(map(torch.cat, pairs)), labels, pad, model.device)


def as_dataset(batch):
    """The rows of `completions` without their padding, as a `datasets.Dataset`; a collator pads them again.

    Of a teacher's completions it is the data of sequence-level distillation, the mode approximated
    by temperature=0 with num_beams > 1. batch: {"input_ids", "attention_mask", "labels"}, each (B,
    L); without a mask all of it is real.
    Source: Kim and Rush 2016, section 3.2.

    >>> as_dataset({"input_ids": torch.tensor([[5, 6, 0]]), "attention_mask": torch.tensor([[1, 1, 0]]),
    ...             "labels": torch.tensor([[-100, 6, -100]])})[0]
    {'input_ids': [5, 6], 'attention_mask': [1, 1], 'labels': [-100, 6]}
    """
    from datasets import Dataset

    rows = _rows("as_dataset: batch", batch, "labels")
    return Dataset.from_dict({"input_ids": [ids[real].tolist() for ids, real, _ in rows],
                              "attention_mask": [[1] * int(real.sum()) for _, real, _ in rows],
                              "labels": [labels[real].tolist() for _, real, labels in rows]})


class OnPolicy:
    """Batches of which a share of the responses is the student's own: GKD's mixture.

        u ~ Uniform(0, 1);   u < share: y ~ p_student(· | x),   otherwise the y of the data

    share: λ in [0, 1]. A row's prompt x is what stands before its first label other than −100 (all
    of it where no label counts), or its first prompt_length tokens, as for plain text.
    max_new_tokens, temperature, eos, pad: as in `completions`. long_prompts: what becomes of a
    prompt that leaves no room for max_new_tokens: "error", a ValueError; "truncate", its last
    tokens that leave room are the prompt; "skip", the row stays as the data has it, and where every
    row does, the batch itself. Room: the student's `positions`, or the attribute `positions` where
    that is smaller, which `DistillationTrainer` sets for the teacher, who reads the same text.

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

    def __init__(self, share, max_new_tokens, prompt_length=None, temperature=1.0, eos=None,
                 pad=None, seed=0, long_prompts="error"):
        self.share = arguments.share("OnPolicy", "share", share)
        self.seed = whole("OnPolicy", "seed", seed)
        if prompt_length is not None:
            whole("OnPolicy", "prompt_length", prompt_length, least=1)
        self.prompt_length, self.positions = prompt_length, None
        options = ["error", "truncate", "skip"]
        self.long_prompts = one_of("OnPolicy", "long_prompts", long_prompts, options)
        eos, pad = _given_ends("OnPolicy", eos, pad)
        self.options = {
            "max_new_tokens": whole("OnPolicy", "max_new_tokens", max_new_tokens, least=1),
            "temperature": number("OnPolicy", "temperature", temperature, low=0),
            "eos": eos,
            "pad": pad,
        }

    def __call__(self, model, batches, step):
        mixed = []
        for index, batch in enumerate(batches):
            rng = np.random.default_rng((self.seed, step, index))
            if rng.random() < self.share:
                student = _unwrapped("OnPolicy", model)
                batch = self._own(student, batch, int(rng.integers(2 ** 63)))
            mixed.append(batch)
        return mixed

    def _own(self, model, batch, seed):
        """The batch with the student's text behind each prompt; a skipped row as it came."""
        rows, room = _rows("OnPolicy: batch", batch), self._room(model)
        prompts = [self._prompt(i, *row, room) for i, row in enumerate(rows)]
        answered = [i for i, prompt in enumerate(prompts) if prompt is not None]
        if not answered:
            return batch
        own = completions(model, [prompts[i] for i in answered], seed=seed, batch=len(answered),
                          **self.options)
        for i, row in zip(answered, _rows("OnPolicy: batch", own), strict=True):
            rows[i] = row
        device = batch["input_ids"].device
        _, pad = _ends(model, self.options["eos"], self.options["pad"])
        ids, labels = ([row[k][row[1]].to(device, torch.long) for row in rows] for k in (0, 2))
        return _batch(ids, labels, pad, device)

    def _room(self, model):
        """How many tokens a prompt may have so that max_new_tokens fit behind it, or infinity."""
        limits = [n for n in (positions(model), self.positions) if n is not None]
        limit, new = min(limits, default=math.inf), self.options["max_new_tokens"]
        if new >= limit:
            raise ValueError(f"OnPolicy: max_new_tokens must leave room for a prompt within the {limit} "
                             f"positions of student and teacher, got {new}")
        return limit - new

    def _prompt(self, i, ids, real, labels, room):
        """The prompt of row i, or None where the row is skipped."""
        counts = (labels[real] != -100).nonzero()
        length = self.prompt_length or (int(counts[0]) if len(counts) else len(labels))
        if length == 0:
            raise ValueError(f"OnPolicy: row {i} has no prompt before its first label; expected labels of −100 there, "
                             "or prompt_length for plain text")
        prompt = ids[real][:length]
        if len(prompt) <= room:
            return prompt
        if self.long_prompts == "error":
            new = self.options["max_new_tokens"]
            raise ValueError(
                f"OnPolicy: row {i} has a prompt of {len(prompt)} tokens, expected at most {room}, so that "
                f"max_new_tokens={new} fit within the {room + new} positions of student and teacher; or "
                "take long_prompts='truncate' or 'skip'")
        return prompt[-room:] if self.long_prompts == "truncate" else None


def distinct(sequences, n):
    """Share of the n-grams, over all sequences, that differ from each other: 1 where none comes twice.

        |{n-grams}| / Σ n-grams

    sequences: lists of tokens or 1-D tensors of ids. Raises ValueError where no sequence holds n tokens.
    Source: Li et al. 2016, who divide by the number of tokens instead.

    >>> distinct([[1, 2, 1, 2]], 2)  # (1, 2) twice, (2, 1) once
    0.6666666666666666
    """
    whole("distinct", "n", n, least=1)
    rows = [row.tolist() if torch.is_tensor(row) else list(row) for row in sequences]
    grams = [tuple(row[i:i + n]) for row in rows for i in range(len(row) - n + 1)]
    if not grams:
        raise ValueError(f"distinct: sequences must hold one of at least n = {n} tokens, got {len(rows)} shorter ones")
    return len(set(grams)) / len(grams)


def perplexity(model, batch):
    """How many tokens a language model wavers between: exp of its mean nats a token that counts.

        exp( −1/N · Σ log q(y_i | y_<i) )

    batch: {"input_ids", "attention_mask", "labels"}, each (B, L), padded on either side; without a
    mask all of it is real. A token counts where it is real, not a row's first, and its label is not
    −100. The model answers in eval mode, with its mode restored. Raises ValueError where no token
    counts, where a text is longer than the model's `positions`, and where it holds an unknown id.

    >>> from transformers import LlamaConfig, LlamaForCausalLM
    >>> config = LlamaConfig(vocab_size=16, hidden_size=8, num_attention_heads=1, num_hidden_layers=1)
    >>> model = LlamaForCausalLM(config)
    >>> _ = torch.nn.init.zeros_(model.lm_head.weight)
    >>> ids = torch.tensor([[1, 2, 3]])
    >>> round(perplexity(model, {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids}), 3)
    16.0
    """
    rows = [(ids[real].cpu(), labels[real].cpu())
            for ids, real, labels in _rows("perplexity: batch", batch, "labels")]
    if not any((labels[1:] != -100).any() for _, labels in rows):
        raise ValueError("perplexity: batch must hold a token that counts, got labels that are all −100")
    model = _unwrapped("perplexity", model)
    longest, room = max(len(ids) for ids, _ in rows), positions(model)
    if room is not None and longest > room:
        raise ValueError(f"perplexity: batch must hold texts of at most {room} tokens, the model's "
                         f"positions, got one of {longest}")
    _check_ids("perplexity: batch", model, [ids for ids, _ in rows])
    # padded on the right, a row starts at position 0 and its tokens see no padding
    ids, labels = (_padded(list(column), padding_value=fill).to(model.device)
                   for column, fill in zip(zip(*rows, strict=True), (0, -100), strict=True))
    with evaluating(model), threads_for(model):
        logits, labels = next_token(model(input_ids=ids).logits, labels)
    return math.exp(cross_entropy_rows(logits, labels).sum().item() / int((labels != -100).sum()))


def positions(model):
    """How many tokens of a text a model can tell the places of; None where nothing limits them.

    model: of `transformers`, also inside DDP, torch.compile or an adapter of peft. It is what the
    configuration calls max_position_embeddings, for rotary positions too; RoBERTa and its like keep
    the first padding_idx + 1 of them for padding, so that 514 place 512 tokens.

    >>> from transformers import RobertaConfig, RobertaModel
    >>> sizes = dict(vocab_size=16, hidden_size=8, num_hidden_layers=1, num_attention_heads=1)
    >>> positions(RobertaModel(RobertaConfig(max_position_embeddings=514, pad_token_id=1, **sizes)))
    512
    """
    config = getattr(inside(model), "config", None)
    if hasattr(config, "get_text_config"):
        config = config.get_text_config()  # of a model that sees, the part that reads
    found = getattr(config, "max_position_embeddings", None)
    if not isinstance(found, int) or found < 1:  # XLNet's −1: no limit
        return None
    return found - _reserved(model)


def _reserved(model):
    """The positions that a model keeps for padding, before its tokens': RoBERTa's padding_idx + 1."""
    tables = [module for name, module in model.named_modules()
              if name.endswith("position_embeddings") and isinstance(module, nn.Embedding)]
    return max((t.padding_idx + 1 for t in tables if t.padding_idx is not None), default=0)


def _unwrapped(name, model):
    """The model inside DDP and torch.compile; an adapter of peft stays, it is part of the model."""
    from transformers import PreTrainedModel

    instance(name, "model", model, nn.Module, "a causal language model of transformers")
    while not isinstance(model, PreTrainedModel):
        parts = model._modules
        if not {"module", "_orig_mod"} & parts.keys():
            break
        model = parts.get("_orig_mod", parts.get("module"))
    if not hasattr(model, "generate"):
        raise TypeError(f"{name}: model must be a causal language model of transformers, got "
                        f"{type(model).__name__}")
    return model


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


def _rows(what, batch, *needed):
    """[(ids, real, labels)] of a batch, each (L,): without a mask all is real, without labels none."""
    names = ("input_ids", "attention_mask", "labels")
    if not hasattr(batch, "keys"):
        raise TypeError(f"{what} must be a dictionary of {names}, got {type(batch).__name__}")
    columns = [batch.get(key) for key in names]
    if missing := [key for key in ("input_ids", *needed) if batch.get(key) is None]:
        raise ValueError(f"{what} must hold {' and '.join(missing)}, got {sorted(map(str, batch))}")
    rows = _tensors(what, columns[0])
    others = [[torch.full_like(row, fill) for row in rows] if given is None
              else _tensors(what, given)
              for given, fill in zip(columns[1:], (1, -100), strict=True)]
    shapes = [[tuple(row.shape) for row in column] for column in (rows, *others)]
    if shapes[1:] != [shapes[0]] * 2 or any(len(shape) != 1 for shape in shapes[0]):
        raise ValueError(f"{what} must hold columns of one shape (B, L), got the rows "
                         f"{dict(zip(names, shapes, strict=True))}")
    return [(ids, real.bool(), labels) for ids, real, labels in zip(rows, *others, strict=True)]


def _tensors(what, rows):
    """Sequences of whole numbers as tensors."""
    single = torch.is_tensor(rows) and not rows.ndim
    if isinstance(rows, str) or not hasattr(rows, "__iter__") or single:
        raise TypeError(f"{what} must be sequences of token ids, got {type(rows).__name__}")
    found = []
    for i, row in enumerate(rows):
        try:
            found.append(torch.as_tensor(row))
        except (TypeError, ValueError, RuntimeError, OverflowError):
            raise TypeError(
                f"{what}[{i}] must be a sequence of token ids, got {row!r:.60}") from None
    return found


def _batch(ids, labels, pad, device):
    """Rows of ids and labels as a batch padded on the right."""
    found = {"input_ids": _padded(ids, padding_value=pad),
             "labels": _padded(labels, padding_value=-100),
             "attention_mask": _padded(list(map(torch.ones_like, ids)))}
    return {k: v.to(device) for k, v in found.items()}


def _prompts(model, prompts, max_new_tokens):
    if model.config.is_encoder_decoder:
        raise ValueError(f"completions: model must be a causal language model, got {type(model).__name__}")
    if reserved := _reserved(model):
        raise ValueError("completions: model must number its positions from 0, as transformers' "
                         f"generate does, got {type(model).__name__}, whose first is {reserved}")
    if hasattr(prompts, "keys"):
        columns = {k: prompts[k] for k in ("input_ids", "attention_mask") if k in prompts}
        prompts = [ids[real] for ids, real, _ in _rows("completions: prompts", columns)]
    rows = [row.cpu() for row in _tensors("completions: prompts", prompts)]
    if not rows:
        raise ValueError("completions: prompts must hold at least one prompt, got none")
    room = positions(model)
    for i, row in enumerate(rows):
        odd = row.is_floating_point() or row.is_complex() or row.dtype == torch.bool
        if row.ndim != 1 or not len(row) or odd:
            raise ValueError(f"completions: prompts[{i}] must be a non-empty sequence of token "
                             f"ids, got {row.dtype} {tuple(row.shape)}")
        if room is not None and len(row) + max_new_tokens > room:
            raise ValueError(f"completions: prompts[{i}] must leave room for "
                             f"max_new_tokens={max_new_tokens} within the model's {room} "
                             f"positions, got {len(row)} tokens")
    _check_ids("completions: prompts", model, rows)
    return [row.long() for row in rows]


def _check_ids(name, model, rows):
    tokens = model.get_input_embeddings().num_embeddings
    for i, row in enumerate(rows):
        if len(row) and (row.min() < 0 or row.max() >= tokens):
            raise ValueError(f"{name}[{i}] must hold ids below {tokens}, got {row.min()} to "
                             f"{row.max()}")


@contextmanager
def _plain(model):
    """The model without its generation config: a top_p or a repetition penalty in it would fill every argument left."""
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


def _draw(temperature, top_k, seed, rows, device):
    """A logits processor after which the argmax is a draw, each row's noise from a generator of its own."""
    seeds = [int(np.random.SeedSequence((seed, row)).generate_state(1)[0]) for row in rows]
    generators = [torch.Generator(device).manual_seed(s) for s in seeds]

    def draw(input_ids, logits):
        if top_k:
            logits = logits.masked_fill(logits < logits.topk(min(top_k, logits.shape[-1])).values[:, -1:], -math.inf)
        noise = [torch.empty_like(z).exponential_(generator=g) for z, g in zip(logits, generators, strict=True)]
        return logits / temperature - torch.stack(noise).log()

    return draw
