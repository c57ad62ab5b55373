"""Prompts with answers, and conversations, as rows to train on: labels on what is to be learnt."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import torch

from kdlab.base.arguments import listed, one_of, whole

# where a template says itself what is the assistant's
MARKS = re.compile(r"\{%-?\s*generation\b")
LEARNT = ("answers", "last answer", "everything")


def to_rows(
    data: Iterable,
    tokenizer: Any,
    learn: str = "answers",
    end: bool = True,
    max_length: int | None = None,
    too_long: str = "error",
    **template: Any,
) -> list[dict[str, torch.Tensor]]:
    """Prompts with completions, or conversations → rows {"input_ids": (L,), "labels": (L,)}.

    data: dictionaries, or a `datasets.Dataset`, in the forms that TRL names: `prompt` and
    `completion`, both texts or both lists of messages; `messages`, a list of {"role", "content"};
    `text`, learnt whole. tokenizer: with a chat template where there are messages.

    learn: "answers" puts labels on completions, or on what the assistant says, "last answer" on its
    last turn alone, "everything" on every token; the rest is −100. end: a text without a template
    ends in the tokenizer's end-of-text token; a template ends its turns itself. max_length: tokens
    a row; a longer one is an "error", is "cut" behind, or is a row to "drop" (too_long). Further
    arguments go to the tokenizer's `apply_chat_template`.

    What the assistant says is told by the template itself where it marks it (`{% generation %}`),
    else it is what a template adds: the conversation up to a turn, with the turn's head, begins the
    one with it. The end of a turn is learnt with it, as without it no answer would stop. A token
    across a border counts as the answer's.

    Raises ValueError or TypeError, with the row's number, for a row of no such form, an assistant
    without a turn, a template that changes what came before, and a row that is too long.

    >>> from kdlab import language_model
    >>> _, tokenizer = language_model("docs_lm")
    >>> row, = to_rows([{"prompt": "Return the", "completion": " number of"}], tokenizer)
    >>> tokenizer.decode(row["input_ids"])
    'Return the number of<s>'
    >>> tokenizer.decode(row["labels"][row["labels"] >= 0])
    ' number of<s>'
    """
    _check(tokenizer, learn, end, max_length, too_long)
    data = listed("to_rows", "data", data, "dictionaries, a row each")
    found = []
    for i, row in enumerate(data):
        what = f"to_rows: data[{i}]"
        ids, learnt = _tokens(what, row, tokenizer, learn, end, template)
        if max_length is not None and len(ids) > max_length:
            if too_long == "drop":
                continue
            if too_long == "error":
                raise ValueError(
                    f"{what} must be at most max_length = {max_length} tokens, got {len(ids)}; "
                    'too_long="cut" cuts it behind, "drop" leaves it out'
                )
            ids, learnt = ids[:max_length], learnt[:max_length]
        found.append(_row(what, ids, learnt))
    if not found:
        raise ValueError("to_rows: data must hold a row that is not left out, got none")
    return found


def _check(tokenizer, learn, end, max_length, too_long):
    one_of("to_rows", "learn", learn, LEARNT)
    one_of("to_rows", "too_long", too_long, ("error", "cut", "drop"))
    if not isinstance(end, bool):
        raise TypeError(f"to_rows: end must be True or False, got {end!r:.60}")
    if max_length is not None:
        whole("to_rows", "max_length", max_length, least=1)
    if not callable(tokenizer) or isinstance(tokenizer, type):
        raise TypeError(
            "to_rows: tokenizer must be one, as kd.language_model gives, "
            f"got {type(tokenizer).__name__}"
        )


def _row(what, ids, learnt):
    """A row as tensors; the labels of what is not learnt are −100."""
    if not any(learnt):  # a loss that asks the teacher alone would learn the whole row
        raise ValueError(
            f"{what} must hold a token that is learnt, got none of {len(ids)}; "
            "is an answer empty, or behind max_length?"
        )
    ids, learnt = torch.tensor(ids), torch.tensor(learnt, dtype=torch.bool)
    return {"input_ids": ids, "labels": torch.where(learnt, ids, -100)}


def _tokens(what, row, tokenizer, learn, end, template):
    """Ids of a row, and which of them are learnt."""
    if not isinstance(row, Mapping):
        raise TypeError(f"{what} must be a dictionary, got {type(row).__name__}")
    given = {name: row.get(name) for name in ("text", "prompt", "completion", "messages")}
    given = {name: value for name, value in given.items() if value is not None}
    if set(given) == {"messages"}:
        return _conversation(what, given["messages"], 0, tokenizer, learn, template)
    if set(given) == {"prompt", "completion"}:
        prompt, completion = given["prompt"], given["completion"]
        if isinstance(prompt, str) and isinstance(completion, str):
            return _completion(what, prompt, completion, tokenizer, learn, end)
        if not isinstance(prompt, str) and not isinstance(completion, str):
            before, after = _turns(what, prompt), _turns(what, completion)
            return _conversation(what, before + after, len(before), tokenizer, learn, template)
    if set(given) == {"text"} and isinstance(given["text"], str):
        return _completion(what, "", given["text"], tokenizer, "everything", end)
    kinds = {name: type(value).__name__ for name, value in given.items()}
    raise ValueError(
        f"{what} must hold prompt and completion (both texts or both messages), messages, or text, "
        f"got {kinds or sorted(map(str, row))}"
    )


# --- texts ---


def _completion(what, prompt, completion, tokenizer, learn, end):
    """Prompt and completion as one text; a token across their border counts as the completion's."""
    ids = list(tokenizer(prompt + completion)["input_ids"])
    if end:
        if tokenizer.eos_token_id is None:
            raise ValueError(
                f"{what} must end in an end-of-text token, which this tokenizer lacks; set "
                "tokenizer.eos_token, or say end=False: then no answer learns to stop"
            )
        if ids[-1:] != [tokenizer.eos_token_id] or len(ids) == 1:
            ids.append(tokenizer.eos_token_id)
    if not ids:
        raise ValueError(f"{what} must hold a text, got one without a token")
    if learn == "everything":
        return ids, [True] * len(ids)
    start = _shared(list(tokenizer(prompt)["input_ids"]), ids)
    if start == len(ids):
        raise ValueError(f"{what} must have a completion to learn, got {completion!r:.60}")
    return ids, [at >= start for at in range(len(ids))]


def _shared(before, after):
    """How many tokens two texts have in common from their beginning."""
    same = 0
    while same < min(len(before), len(after)) and before[same] == after[same]:
        same += 1
    return same


# --- conversations ---


def _turns(what, messages):
    """Messages as a list of dictionaries that hold a role and a content."""
    if isinstance(messages, str) or not hasattr(messages, "__iter__"):
        raise TypeError(f"{what}: messages must be a list, got {type(messages).__name__}")
    messages = list(messages)
    for turn in messages:
        if not isinstance(turn, Mapping) or not isinstance(turn.get("role"), str):
            raise ValueError(f'{what}: a message must hold "role" and "content", got {turn!r:.60}')
    return messages


def _conversation(what, messages, after, tokenizer, learn, template):
    """A conversation in its template; the assistant's turns from number `after` on are answers."""
    messages = _turns(what, messages)
    turns = [i for i, m in enumerate(messages) if m["role"] == "assistant" and i >= after]
    if not turns:
        raise ValueError(f"{what} must hold a turn of the assistant, which is what is learnt")
    if getattr(tokenizer, "chat_template", None) is None:
        raise ValueError(
            f"{what} holds messages, for which the tokenizer must have a chat_template; set one, "
            "or give prompt and completion as texts"
        )

    if not getattr(tokenizer, "is_fast", False):
        raise ValueError(
            f"{what} holds messages, for which the tokenizer must say where a token stands in the "
            f"text (is_fast), got {type(tokenizer).__name__}; give prompt and completion as texts"
        )

    def written(messages, head=False):
        return tokenizer.apply_chat_template(
            messages, add_generation_prompt=head, tokenize=False, **template
        )

    text = written(messages)
    # the template writes what special tokens it wants
    told = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    ids, places = list(told["input_ids"]), told["offset_mapping"]
    if learn == "everything":
        return ids, [True] * len(ids)
    if learn == "answers" and not after and MARKS.search(str(tokenizer.chat_template)):
        told = tokenizer.apply_chat_template(
            messages, return_dict=True, return_assistant_tokens_mask=True, **template
        )
        return list(told["input_ids"]), [bool(m) for m in told["assistant_masks"]]
    learnt = [False] * len(ids)
    for turn in turns if learn == "answers" else turns[-1:]:
        head, whole_turn = written(messages[:turn], head=True), written(messages[: turn + 1])
        if not (text.startswith(whole_turn) and whole_turn.startswith(head)):
            raise ValueError(
                f"{what}: the template must write a conversation on without changing what came "
                f'before, but it does at turn {turn}; learn="last answer" learns the last'
            )
        # a token across the border is the answer's: a head may end in the space before a word
        for at, (first, last) in enumerate(places):
            learnt[at] |= len(head) < last and first < len(whole_turn) and first < last
    return ids, learnt
