"""Text that a model writes: a teacher's or the student's own, ready to be trained on; its diversity, its perplexity."""

import math
from contextlib import contextmanager
from functools import partial

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence

from .lab import threads_for
from .objectives import cross_entropy_rows
from .tokens import next_token

_padded = partial(pad_sequence, batch_first=True)


def completions(model, prompts, max_new_tokens, temperature=1.0, top_k=0, num_beams=1, eos=None, pad=None, seed=0,
                batch=32):
    """What a causal language model writes after each prompt → {"input_ids", "attention_mask", "labels"}, each (B, L).

        y_t = argmax_v [z_t(v) / T − log E_v],  E_v ~ Exp(1),   which is a draw from softmax(z_t / T)

    prompts: B sequences of ids of any lengths, or a tokenizer's {"input_ids", "attention_mask"} padded on either side.
    A row is its prompt, what was written and then padding; labels are −100 except on what was written, of which the
    first end-of-text token is the last. temperature 0 is greedy, or the best of num_beams; top_k 0 leaves every token
    possible. eos: id or ids that end a text, by default those of the model's generation config, of which nothing else
    is used; () never ends. pad: the id that fills masked places. batch: prompts at a time; prompt i draws the same
    for a seed whatever the batch (up to rounding in the logits), and no global random state is used. The model
    answers in eval mode, with its mode restored. Raises ValueError where a prompt is empty, holds an unknown id or
    leaves no room for max_new_tokens. Source of the draw: the Gumbel-max trick (Maddison, Tarlow, Minka 2014).

    >>> from transformers import LlamaConfig, LlamaForCausalLM
    >>> config = LlamaConfig(vocab_size=16, hidden_size=8, num_attention_heads=1, num_hidden_layers=1)
    >>> model = LlamaForCausalLM(config)
    >>> written = completions(model, [[3, 4, 5], [6]], max_new_tokens=2, eos=())
    >>> (written["labels"] >= 0).int()
    tensor([[0, 0, 0, 1, 1],
            [0, 1, 1, 0, 0]], dtype=torch.int32)
    """
    _check("completions", temperature, max_new_tokens=(max_new_tokens, 1), top_k=(top_k, 0), num_beams=(num_beams, 1),
           seed=(seed, 0), batch=(batch, 1))
    if num_beams > 1 and temperature:
        raise ValueError(f"completions: num_beams={num_beams} needs temperature=0, got {temperature!r}")
    rows, own = _prompts(model, prompts, max_new_tokens), model.generation_config
    eos = own.eos_token_id if eos is None else eos
    eos = [eos] if isinstance(eos, int) else list(eos or ())
    pad = next(i for i in (pad, own.pad_token_id, *eos, 0) if i is not None)
    texts = []
    with _evaluating(model), _plain(model):
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
    whole = [torch.cat(pair) for pair in zip(rows, texts, strict=True)]
    labels = [torch.cat([torch.full_like(row, -100), text]) for row, text in zip(rows, texts, strict=True)]
    found = {"input_ids": _padded(whole, padding_value=pad), "labels": _padded(labels, padding_value=-100),
             "attention_mask": _padded(list(map(torch.ones_like, whole)))}
    return {k: v.to(model.device) for k, v in found.items()}


def as_dataset(batch):
    """The rows of `completions` without their padding, as a `datasets.Dataset`; a collator pads them again.

    Of a teacher's completions it is the data of sequence-level distillation, the mode approximated by temperature=0
    with num_beams > 1. batch: {"input_ids", "attention_mask", "labels"}, each (B, L).
    Source: Kim and Rush 2016, section 3.2.

    >>> as_dataset({"input_ids": torch.tensor([[5, 6, 0]]), "attention_mask": torch.tensor([[1, 1, 0]]),
    ...             "labels": torch.tensor([[-100, 6, -100]])})[0]
    {'input_ids': [5, 6], 'attention_mask': [1, 1], 'labels': [-100, 6]}
    """
    from datasets import Dataset

    real = batch["attention_mask"].bool()
    return Dataset.from_dict({k: [row[m].tolist() for row, m in zip(batch[k], real, strict=True)]
                              for k in ("input_ids", "attention_mask", "labels")})


class OnPolicy:
    """Batches of which a share of the responses is the student's own: GKD's mixture.

        u ~ Uniform(0, 1);   u < share: y ~ p_student(· | x),   otherwise the y of the data

    share: λ in [0, 1]. A row's prompt x is what stands before its first label other than −100 (all of it where no
    label counts), or its first prompt_length tokens, as for plain text. max_new_tokens, temperature, eos, pad: as in
    `completions`. Called as on_policy(student, batches, step) with the micro-batches of one optimiser's step, each
    {"input_ids", "attention_mask", "labels"} (B, L) padded on either side → a list in which some are new dictionaries
    of these three, padded on the right, whose labels cover what the student wrote and nothing else. Draws depend on
    seed, step and the batch's place in the list only. Source: Agarwal et al. 2024, algorithm 1.

    >>> batches = [{"input_ids": torch.tensor([[5, 6]])}]
    >>> OnPolicy(share=0.0, max_new_tokens=8)(None, batches, step=0)[0] is batches[0]
    True
    """

    def __init__(self, share, max_new_tokens, prompt_length=None, temperature=1.0, eos=None, pad=None, seed=0):
        if not isinstance(share, (int, float)) or not 0 <= share <= 1:
            raise ValueError(f"OnPolicy: share must be a number in [0, 1], got {share!r}")
        _check("OnPolicy", temperature, max_new_tokens=(max_new_tokens, 1), seed=(seed, 0),
               prompt_length=(1 if prompt_length is None else prompt_length, 1))
        self.share, self.prompt_length, self.seed = share, prompt_length, seed
        self.options = {"max_new_tokens": max_new_tokens, "temperature": temperature, "eos": eos, "pad": pad}

    def __call__(self, model, batches, step):
        model = getattr(model, "module", model)  # what DDP wraps
        mixed = []
        for index, batch in enumerate(batches):
            rng = np.random.default_rng((self.seed, step, index))
            if rng.random() < self.share:
                columns = batch["input_ids"], batch["attention_mask"].bool(), batch["labels"]
                prompts = [self._prompt(i, *row) for i, row in enumerate(zip(*columns, strict=True))]
                own = completions(model, prompts, seed=int(rng.integers(2 ** 63)), batch=len(prompts), **self.options)
                batch = {k: v.to(batch["input_ids"].device) for k, v in own.items()}
            mixed.append(batch)
        return mixed

    def _prompt(self, i, ids, real, labels):
        counts = (labels[real] != -100).nonzero()
        length = self.prompt_length or (int(counts[0]) if len(counts) else len(labels))
        if length == 0:
            raise ValueError(f"OnPolicy: row {i} has no prompt before its first label; expected labels of −100 there, "
                             "or prompt_length for plain text")
        return ids[real][:length]


def distinct(sequences, n):
    """Share of the n-grams, over all sequences, that differ from each other: 1 where none comes twice.

        |{n-grams}| / Σ n-grams

    sequences: lists of tokens or 1-D tensors of ids. Raises ValueError where no sequence holds n tokens.
    Source: Li et al. 2016, who divide by the number of tokens instead.

    >>> distinct([[1, 2, 1, 2]], 2)  # (1, 2) twice, (2, 1) once
    0.6666666666666666
    """
    _check("distinct", n=(n, 1))
    rows = [row.tolist() if torch.is_tensor(row) else list(row) for row in sequences]
    grams = [tuple(row[i:i + n]) for row in rows for i in range(len(row) - n + 1)]
    if not grams:
        raise ValueError(f"distinct: sequences must hold one of at least n = {n} tokens, got {len(rows)} shorter ones")
    return len(set(grams)) / len(grams)


def perplexity(model, batch):
    """How many tokens a language model wavers between: exp of its mean nats a token that counts.

        exp( −1/N · Σ log q(y_i | y_<i) )

    batch: {"input_ids", "attention_mask", "labels"}, each (B, L), padded on either side; a token counts where it is
    real, not a row's first, and its label is not −100. The model answers in eval mode, with its mode restored.
    Raises ValueError where no token counts.

    >>> from transformers import LlamaConfig, LlamaForCausalLM
    >>> config = LlamaConfig(vocab_size=16, hidden_size=8, num_attention_heads=1, num_hidden_layers=1)
    >>> model = LlamaForCausalLM(config)
    >>> _ = torch.nn.init.zeros_(model.lm_head.weight)
    >>> ids = torch.tensor([[1, 2, 3]])
    >>> round(perplexity(model, {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids}), 3)
    16.0
    """
    real = batch["attention_mask"].bool()
    # padded on the right, a row starts at position 0 and its tokens see no padding
    ids, labels = (_padded([row[m] for row, m in zip(batch[k], real, strict=True)], padding_value=fill)
                   for k, fill in (("input_ids", 0), ("labels", -100)))
    with _evaluating(model):
        logits, labels = next_token(model(input_ids=ids.to(model.device)).logits, labels.to(model.device))
    if not (labels != -100).any():
        raise ValueError("perplexity: batch must hold a token that counts, got labels that are all −100")
    return math.exp(cross_entropy_rows(logits, labels).sum().item() / int((labels != -100).sum()))


def _check(name, temperature=1.0, **numbers):
    for key, (value, least) in numbers.items():
        if not isinstance(value, int) or value < least:
            raise ValueError(f"{name}: {key} must be a whole number of at least {least}, got {value!r}")
    if not isinstance(temperature, (int, float)) or not 0 <= temperature < math.inf:
        raise ValueError(f"{name}: temperature must be a finite number of at least 0 (0: greedy), got {temperature!r}")


def _prompts(model, prompts, max_new_tokens):
    if model.config.is_encoder_decoder:
        raise ValueError(f"completions: model must be a causal language model, got {type(model).__name__}")
    if hasattr(prompts, "keys"):
        prompts = [ids[m.bool()] for ids, m in zip(prompts["input_ids"], prompts["attention_mask"], strict=True)]
    rows = [torch.as_tensor(row).cpu() for row in prompts]
    if not rows:
        raise ValueError("completions: prompts must hold at least one prompt, got none")
    tokens, room = model.get_input_embeddings().num_embeddings, getattr(model.config, "max_position_embeddings", None)
    for i, row in enumerate(rows):
        if row.ndim != 1 or not len(row) or row.is_floating_point():
            raise ValueError(f"completions: prompts[{i}] must be a non-empty sequence of token ids, got {row.dtype} "
                             f"{tuple(row.shape)}")
        if row.min() < 0 or row.max() >= tokens:
            raise ValueError(f"completions: prompts[{i}] must hold ids below {tokens}, got {row.min()} to {row.max()}")
        if room is not None and len(row) + max_new_tokens > room:
            raise ValueError(f"completions: prompts[{i}] must leave room for max_new_tokens={max_new_tokens} within "
                             f"the model's {room} positions, got {len(row)} tokens")
    return [row.long() for row in rows]


@contextmanager
def _evaluating(model):
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad(), threads_for(model):
            yield
    finally:
        for module, training in modes.items():
            module.training = training


@contextmanager
def _plain(model):
    """The model without its generation config: a top_p or a repetition penalty in it would fill every argument left."""
    from transformers import GenerationConfig

    own, model.generation_config = model.generation_config, GenerationConfig()
    try:
        yield
    finally:
        model.generation_config = own


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
