"""A teacher behind an API in OpenAI's format: its answers, kept, counted and paid for once."""

import hashlib
import json
import math
import os
import re
import tempfile
import threading
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import torch
from torch import Tensor

from kdlab.base.arguments import instance, listed, number, text, whole
from kdlab.base.extras import needs
from kdlab.teachers.sparse import log_tail

LIMITS = ("max_tokens", "max_completion_tokens")  # by either name: how long an answer may be
# what complete and chat write themselves, and what would be paid for and not read
OURS = {"model", "prompt", "messages", "logprobs", "top_logprobs", "n", "best_of", "echo", "stream"}
NO_BODY = {"extra_headers", "extra_query", "timeout"}  # openai's own; a header may hold a secret
POINTLESS = (401, 403, 404)  # a key, a right or a model that is missing: missing for every prompt
GIVE_UP = 10  # failures in a row after which the server is taken to be ill
# GPT-2's letters for bytes: one that prints stands for itself, the others for the letters from 256
PRINTED = [*range(33, 127), *range(161, 173), *range(174, 256)]
LETTERS = {byte: chr(byte) for byte in PRINTED} | {
    byte: chr(256 + i) for i, byte in enumerate(sorted({*range(256)} - {*PRINTED}))
}


@dataclass(frozen=True)
class Answer:
    """What an API's teacher said: its text, why it ended, log-probabilities of its L tokens.

    finish: "stop", "length", …; "refusal" or "content_filter" where the teacher would not answer.
    tokens: L strings, as the server writes tokens; log_probs: L numbers in nats; top: L dicts, the
    k most likely tokens → log-probability, likeliest first. The three are empty where none were
    asked for, and after a refusal. A token that no text can tell is "bytes:\\xf0\\x9f" (half an
    emoji), or "token_id:N"; "alike:I:text" where the server says only that several print as text.

    >>> Answer("no", ["no"], [-0.1], [{"no": -0.1, "yes": -2.5}], "stop").finish
    'stop'
    """

    text: str
    tokens: list
    log_probs: list
    top: list
    finish: str

    @property
    def refused(self):
        """Whether the teacher, or the filter in front of it, would not answer (to the end).

        >>> Answer("", [], [], [], "refusal").refused
        True
        """
        return self.finish in ("refusal", "content_filter")


def _address(base_url):
    """The parts of an address; the error for one of another shape doesn't show its password."""
    with suppress(ValueError):  # urlsplit's, of brackets and ports
        url = urlsplit(text("APITeacher", "base_url", base_url))
        hidden = url.username is not None or url.password is not None or url.query
        if url.scheme in ("http", "https") and url.hostname and url.port != 0 and not hidden:
            return url
    raise ValueError(
        "APITeacher: base_url must look like https://host/v1, without a password or a query"
    )


def _settings(given, max_tokens, temperature, seed):
    """What a request says beside model, prompt and log-probabilities; what is None isn't sent."""
    given = dict(given)
    given |= given.pop("extra_body", None) or {}
    if wrong := sorted(given.keys() & (OURS | NO_BODY)):
        raise ValueError(
            f"APITeacher: {wrong} can't be given: one whole answer a prompt is asked for, "
            "of this model, log-probabilities by top_logprobs, and no headers"
        )
    if temperature is not None:
        temperature = float(number("APITeacher", "temperature", temperature, low=0))
    settings = {"max_tokens": max_tokens, "temperature": temperature, "seed": seed} | given
    settings = {name: value for name, value in settings.items() if value is not None}
    for name in [name for name in LIMITS if name in settings] or ["max_tokens"]:
        whole("APITeacher", name, settings.get(name), least=1)
    return settings


def _check_price(price, max_cost):
    if price is not None and not (isinstance(price, (tuple, list)) and len(price) == 2):
        raise ValueError(
            f"APITeacher: price must be (in, out) dollars per million tokens, got {price!r}"
        )
    for dollars in price or ():
        number("APITeacher", "price", dollars, low=0)
    if max_cost is not None and price is None:
        raise ValueError(f"APITeacher: max_cost must come with a price, got {max_cost!r} without")
    number("APITeacher", "max_cost", 0 if max_cost is None else max_cost, low=0)


def _check_folder(cache):
    instance("APITeacher", "cache", cache, (str, os.PathLike), "a folder's path")
    text("APITeacher", "cache", os.fspath(cache))
    if Path(cache).is_file():
        raise ValueError(f"APITeacher: cache must be a folder, got the file {cache}")


def _client(url, base_url, api_key, retries, timeout):
    """OpenAI's client for this address."""
    with needs("api", asked="APITeacher", why="a teacher behind HTTP needs"):
        import openai

    # a proxy is no way to this machine
    local = url.hostname in ("127.0.0.1", "localhost", "::1")
    return openai.OpenAI(
        base_url=base_url,
        api_key=api_key,
        max_retries=retries,
        timeout=timeout,
        http_client=openai.DefaultHttpxClient(trust_env=False) if local else None,
    )


def _asked_scores(name, k):
    """How an endpoint is asked for the k likeliest tokens: that of a prompt, or of messages."""
    return {"logprobs": k} if name == "prompt" else {"logprobs": True, "top_logprobs": k}


def _several(given):
    return hasattr(given, "__iter__") and not isinstance(given, (str, dict))


class APITeacher:
    """A model behind an API in OpenAI's format: hosted, kdlab.teachers.server, vLLM, llama.cpp.

    base_url: the address up to /v1. api_key: is shown and written nowhere. model: its name there.
    cache: a folder, one file an answer, named by a hash of address, model, prompt and settings; a
    kept answer is free. A file that is damaged is named in a ValueError and not asked for again:
    asking costs, so deleting it is up to you. max_calls: answers that may be asked for, retries not
    counted. max_cost: dollars, by price = (in, out) dollars per million tokens; before a call a
    bound counts (a token is at least a byte), then the server's own figures. A failed call counts
    by its bound unless refused (4xx); a try that timed out and was repeated may be billed unseen.
    retries: tries after the first, on 429, 5xx, timeouts and broken connections, with back-off
    (Retry-After up to two minutes is honoured). timeout: seconds without a sign of the server.
    workers: calls at the same time. A refusal or an empty answer is an `Answer` as any other, kept
    too; a warning gives its number. Where a call fails the other prompts are still asked, and an
    error at the end says which failed: ConnectionError (status and tries named) or RuntimeError (an
    answer that lacks what was asked). At a limit (RuntimeError), a key or a model that is refused,
    or ten failures in a row, no more are asked. The answers that came are in the cache, and in the
    error's `answers` in their places.

    >>> APITeacher("http://127.0.0.1:8000/v1", "secret", "topics_lm", max_calls=100)
    APITeacher('http://127.0.0.1:8000/v1', model='topics_lm': 0 calls, 0.000000 dollars)
    """

    def __init__(
        self,
        base_url: str,
        api_key: str,
        model: str,
        cache: str | os.PathLike | None = None,
        max_calls: int | None = None,
        max_cost: float | None = None,
        price: tuple[float, float] | None = None,
        retries: int = 3,
        timeout: float = 30.0,
        workers: int = 4,
    ) -> None:
        url = _address(base_url)
        text("APITeacher", "api_key", api_key)
        text("APITeacher", "model", model)
        whole("APITeacher", "retries", retries)
        whole("APITeacher", "workers", workers, least=1)
        whole("APITeacher", "max_calls", 0 if max_calls is None else max_calls)
        number("APITeacher", "timeout", timeout, above=0)
        _check_price(price, max_cost)
        if cache is not None:
            _check_folder(cache)
        self._client = _client(url, base_url, api_key, retries, timeout)
        self.url, self.model = base_url.rstrip("/"), model
        self.cache = Path(cache) if cache is not None else None
        self.max_calls, self.max_cost, self.price = max_calls, max_cost, price or (0, 0)
        self.workers = workers
        self.calls, self.cost, self._reserved, self._lock = 0, 0.0, 0.0, threading.Lock()

    def __repr__(self):
        return (
            f"APITeacher({self.url!r}, model={self.model!r}: "
            f"{self.calls} calls, {self.cost:.6f} dollars)"
        )

    def complete(
        self,
        prompts: Any,
        max_tokens: int | None = None,
        temperature: float = 0.0,
        top_logprobs: int = 5,
        seed: int = 0,
        answers: int = 1,
        keep: Callable[[Any, Answer], Any] | None = None,
        **request: Any,
    ) -> list:
        """Continue texts, by the completions endpoint: prompts → a list of `Answer`.

        top_logprobs: 0 for the text only. answers: how many of each prompt, with seeds that count
        up; above 1 the temperature is above 0, and each prompt has a list of them. keep: a function
        of the prompt and an `Answer`, asked when all have come; each prompt then has the list of
        those for which it is true. request: whatever else the server takes (stop, top_p, …), also
        as extra_body; it is part of an answer's name in the cache. What is None is not sent.
        """
        prompts = list(prompts) if _several(prompts) else prompts
        if not _several(prompts) or not all(isinstance(prompt, str) for prompt in prompts):
            raise TypeError(f"APITeacher: prompts must be a list of texts, got {prompts!r:.80}")
        settings = _settings(request, max_tokens, temperature, seed)
        return self._ask_all("prompt", prompts, settings, top_logprobs, answers, keep)

    def chat(
        self,
        messages: Any,
        max_tokens: int | None = None,
        temperature: float = 0.0,
        top_logprobs: int = 5,
        seed: int = 0,
        answers: int = 1,
        keep: Callable[[Any, Answer], Any] | None = None,
        **request: Any,
    ) -> Any:
        """Answer conversations, by the chat endpoint → a list of `Answer`.

        Each is a list [{"role", "content"}, …]. The rest as for `complete`. A model that refuses
        max_tokens, temperature or seed is asked by chat(messages, max_completion_tokens=500,
        temperature=None, seed=None).
        """
        messages = list(messages) if _several(messages) else messages
        if not _several(messages) or not all(
            isinstance(talk, list) and all(isinstance(m, dict) for m in talk) for talk in messages
        ):
            raise TypeError(
                "APITeacher: messages must be a list of conversations, "
                f"each [{{'role': …, 'content': …}}, …], got {messages!r:.80}"
            )
        settings = _settings(request, max_tokens, temperature, seed)
        return self._ask_all("messages", messages, settings, top_logprobs, answers, keep)

    def score(self, texts: Any, top_logprobs: int = 5) -> list:
        """How the teacher reads texts that are there, such as a student's → a list of `Answer`.

        Asked with echo and no new token (kdlab.teachers.server, vLLM, llama.cpp; OpenAI's own no
        longer): `tokens`, `log_probs` and `top` of each text from its second token on, as nothing
        stands before the first. So row i is the teacher's distribution over token i + 1, as a
        student's logits are. RuntimeError where a server ignores echo, or lists other tokens than
        it read.
        """
        texts = list(texts) if _several(texts) else texts
        if not _several(texts) or not all(isinstance(one, str) and one for one in texts):
            raise TypeError(f"APITeacher: texts must be a list of texts, got {texts!r:.80}")
        if whole("APITeacher", "top_logprobs", top_logprobs, most=20) == 0:
            raise ValueError("APITeacher: top_logprobs must be at least 1 to score a text, got 0")
        settings = {"max_tokens": 0, "echo": True}
        return self._ask_all("prompt", texts, settings, top_logprobs, 1, None)

    def _ask_all(self, name, prompts, settings, k, count, keep):
        whole("APITeacher", "top_logprobs", k, most=20)
        whole("APITeacher", "answers", count, least=1)
        if count > 1 and not settings.get("temperature", 1):
            raise ValueError(
                f"APITeacher: answers must be 1 at temperature 0, where all are alike, got {count}"
            )
        if keep is not None and not callable(keep):
            raise TypeError(f"APITeacher: keep must be a function or None, got {keep!r:.60}")
        base = {"model": self.model, **settings, **(_asked_scores(name, k) if k else {})}
        seeds = [{}]
        if count > 1 and "seed" in settings:
            first = whole("APITeacher", "seed", settings["seed"])
            seeds = [{"seed": first + n} for n in range(count)]
        elif count > 1:
            seeds = [{}] * count
        requests = [{**base, **seed, name: prompt} for prompt in prompts for seed in seeds]
        for place, request in enumerate(requests):
            try:
                json.dumps(request, ensure_ascii=False, allow_nan=False).encode()
            except (TypeError, ValueError) as error:  # a set, NaN, half a character
                raise ValueError(
                    f"APITeacher: what prompt {place // count} asks must be JSON: {error}"
                ) from None

        def key(place, request):
            number = 0 if "seed" in settings else place % count  # where no seed tells them apart
            return json.dumps([self.url, request, *([number] if number else [])], sort_keys=True)

        keys = [key(place, request) for place, request in enumerate(requests)]
        # the same question twice is asked once
        found = self._gather(dict(zip(keys, requests, strict=True)), k)
        came = self._report([found[key] for key in keys], count)
        return came if keep is None else _kept_of(came, prompts, count, keep)

    def _gather(self, requests, k):
        """For each key its `Answer`, the error of its call, or None where it was not asked."""
        over, failed = threading.Event(), []

        def ask(key):
            try:
                if kept := self._kept(key):
                    return kept
                if over.is_set():
                    return None
                answer = self._ask(key, requests[key], k)
                failed.clear()
                return answer
            except Exception as error:  # told at the end: the other answers are not lost to it
                failed.append(key)
                if _ends(error) or len(failed) >= GIVE_UP:
                    over.set()
                return error

        with ThreadPoolExecutor(self.workers) as pool:
            try:
                return dict(zip(requests, pool.map(ask, requests), strict=True))
            finally:
                over.set()  # after Ctrl-C: what is under way still comes into the cache

    def _report(self, found, count):
        """The answers, with a warning of those that say nothing; an error where not all came."""
        each = [one if isinstance(one, Answer) else None for one in found]
        answers = each if count == 1 else _groups(each, count)
        mute = [i // count for i, one in enumerate(each) if one and (one.refused or not one.text)]
        if mute := sorted(set(mute)):
            warnings.warn(
                f"APITeacher: of {len(answers)} prompts, counted from 0, "
                f"these were refused or got an empty answer: {_some(mute)}",
                stacklevel=4,
            )
        errors = {i // count: one for i, one in enumerate(found) if isinstance(one, Exception)}
        if not errors:
            return answers
        first = min(errors.values(), key=lambda error: not _ends(error))  # what ended it
        reasons = list(dict.fromkeys(map(str, [first, *errors.values()])))[:3]
        unasked = sorted({i // count for i, one in enumerate(found) if one is None} - set(errors))
        came = sum(isinstance(one, Answer) for one in found)
        summary = (
            f"Of {len(answers)} prompts, counted from 0, these failed: {_some([*errors])}; "
            f"not asked: {_some(unasked)}. The {came} answers that came are in this error's "
            ".answers" + (f" and in {self.cache}" if self.cache else "")
        )
        plain = type(first) in (ConnectionError, RuntimeError, ValueError)
        problem = type(first)("\n".join([*reasons, summary])) if plain else first
        if not plain:
            problem.add_note(summary)
        problem.answers = answers
        raise problem

    def _path(self, key):
        return self.cache and self.cache / f"{hashlib.sha256(key.encode()).hexdigest()}.json"

    def _kept(self, key):
        path = self._path(key)
        return _read(path, key) if path and path.exists() else None

    def _ask(self, key, request, k):
        stop = request.get("stop") or []
        longest = max(map(len, [stop] if isinstance(stop, str) else stop), default=1)
        body = self._call(request)
        if request.get("echo"):
            _without_first(body)
        answer = _parse(body, k, max(1, longest))
        if path := self._path(key):
            _write(path, key, answer)
        return answer

    def _call(self, request):
        """The server's answer as a dict, within the limits; what it cost is added up."""
        from openai import OpenAIError

        # a token is at least a byte; the bytes of the settings make up for the template around a
        # conversation
        longest = max(request.get(name, 0) for name in LIMITS)
        bound = self._dollars(len(json.dumps(request, ensure_ascii=False).encode()), longest)
        with self._lock:
            for name, reached in {
                "max_calls": self.calls + 1,
                "max_cost": self.cost + self._reserved + bound,
            }.items():
                if (limit := getattr(self, name)) is not None and reached > limit:
                    problem = RuntimeError(
                        f"{self}: {name} {limit} leaves no room for a call "
                        f"of up to {bound:.6f} dollars ({self._reserved:.6f} under way). "
                        f"Answers are kept in: {self.cache}"
                    )
                    problem.ends = True
                    raise problem
            self.calls, self._reserved = self.calls + 1, self._reserved + bound
        where = self._client.completions if "prompt" in request else self._client.chat.completions
        named = {name: request[name] for name in ("model", "prompt", "messages") if name in request}
        rest = {name: value for name, value in request.items() if name not in named}
        spent = bound  # what stays where the server doesn't say
        try:
            # extra_body: sent as it is, also what this version of openai's library has not heard of
            answer = where.with_raw_response.create(**named, extra_body=rest)
            body = json.loads(answer.http_response.text)
            spent = self._dollars(
                body["usage"]["prompt_tokens"], body["usage"]["completion_tokens"]
            )
            return body
        except (OpenAIError, KeyError, TypeError, ValueError) as error:
            problem = self._explain(error)
            spent = 0.0 if getattr(error, "status_code", 500) < 500 else bound
        finally:
            with self._lock:
                self.cost, self._reserved = self.cost + spent, self._reserved - bound
        raise problem  # out here it carries no trace of the request, whose headers hold the key

    def _dollars(self, tokens_in, tokens_out):
        return (tokens_in * self.price[0] + tokens_out * self.price[1]) / 1e6

    def _explain(self, error):
        """The error to raise for one of openai's or for a broken answer."""
        if not hasattr(error, "request"):
            return RuntimeError(
                f"APITeacher: {self.url} gave a broken answer, no JSON or no usage: {error!r}"
            )
        tries = int(error.request.headers["x-stainless-retry-count"]) + 1
        status, headers = (
            getattr(error, "status_code", None),
            getattr(getattr(error, "response", None), "headers", {}),
        )
        what = f"answered {status}" if status else "gave no answer"
        wait = f", asking to wait {headers['retry-after']} s" if "retry-after" in headers else ""
        said = str(error).replace(self._client.api_key, "[key]")
        problem = ConnectionError(
            f"APITeacher: {self.url} {what} after {tries} tries{wait}: {said:.300}"
        )
        problem.ends = status in POINTLESS
        return problem


def _groups(each, count):
    """A list of `count` for each prompt."""
    return [each[i : i + count] for i in range(0, len(each), count)]


def _kept_of(answers, prompts, count, keep):
    """Of each prompt's answers those that `keep` is true for; where it fails, none is lost."""
    groups = answers if count > 1 else _groups(answers, 1)
    try:
        return [
            [answer for answer in group if keep(prompt, answer)]
            for prompt, group in zip(prompts, groups, strict=True)
        ]
    except Exception as error:
        error.answers = answers
        raise


def _ends(error):
    """Whether asking on makes no sense: a limit, a key that is refused, a full disk."""
    return getattr(error, "ends", not isinstance(error, (ConnectionError, RuntimeError)))


def _some(numbers):
    """The first numbers of a list, and how many there are.

    >>> _some([3, 7]), _some(list(range(99))), _some([])
    ('3, 7', '0, 1, 2, 3, 4, 5, 6, 7, 8, 9, … (99 in all)', 'none')
    """
    more = f", … ({len(numbers)} in all)" if len(numbers) > 10 else ""
    return ", ".join(map(str, numbers[:10])) + more if numbers else "none"


def _said(choice):
    """(text, why it ended, its log-probabilities) of a choice; of a refusal the text is empty."""
    finish, scores = choice["finish_reason"], choice.get("logprobs") or {}
    if "text" in choice:
        text = choice["text"]
        mute = finish == "content_filter" and not text
    else:
        refusal = choice["message"].get("refusal")
        text = choice["message"].get("content") if refusal else choice["message"]["content"]
        mute = text is None or (refusal and not text)
        if mute and (refusal or finish == "stop"):  # "length", "tool_calls", … say more
            finish = "refusal"
    return ("", finish, {}) if mute else (text, finish, scores)


def _names(row):
    """A name for each of a row's tokens, no two the same, from what the server says of them.

    A token's text, where that is all there is to it and no other's; else its bytes, else its id.

    >>> print(*_names([{"token": "�", "bytes": [240, 159]}, {"token": "�", "bytes": [240]}]))
    bytes:\\xf0\\x9f bytes:\\xf0
    >>> _names([{"token": "�"}, {"token": "�"}])
    ['alike:0:�', 'alike:1:�']
    """

    def by_text(token):
        try:
            bytes(token.get("bytes") or []).decode()
        except UnicodeDecodeError:  # half a character is no text
            return None
        return token["token"]

    def by_bytes(token):
        data = token.get("bytes")
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in data) if data else None

    def by_id(token):
        return f"token_id:{token['id']}" if isinstance(token.get("id"), int) else None

    ways = [[way(token) for token in row] for way in (by_text, by_bytes, by_id)]
    return [
        next(
            (way[i] for way in ways if way[i] is not None and way.count(way[i]) == 1),
            f"alike:{i}:{token['token']}",
        )
        for i, token in enumerate(row)
    ]


def _name(token, row, names):
    """The name of the token that came: that of its place in the row, or one of its own."""
    same = [
        i
        for i, one in enumerate(row)
        if (one["token"], one.get("bytes")) == (token["token"], token.get("bytes"))
    ]
    if not same:
        return _names([token])[0]
    return names[min(same, key=lambda i: abs(row[i]["logprob"] - token["logprob"]))]


def _scores(found):
    """(tokens, log-probabilities, top) of an answer, from what either endpoint calls logprobs."""
    if "content" not in found:
        return tuple(found.get(name) or [] for name in ("tokens", "token_logprobs", "top_logprobs"))
    entries = found["content"] or []
    rows = [(entry, entry["top_logprobs"], _names(entry["top_logprobs"])) for entry in entries]
    top = [
        dict(zip(names, [token["logprob"] for token in row], strict=True)) for _, row, names in rows
    ]
    return [_name(*row) for row in rows], [entry["logprob"] for entry in entries], top


def _parse(body, k, ending=1):
    """A server's answer → `Answer`, or a RuntimeError that says what is missing.

    ending: how many tokens at the end a server may count and not list: the one that ends an answer,
    or those of a stop string.
    """
    try:
        choice, used = body["choices"][0], body["usage"]["completion_tokens"]
        text, finish, found = _said(choice)
        tokens, log_probs, top = _scores(found) if k else ([], [], [])
        top = [dict(sorted(row.items(), key=lambda pair: -pair[1])[:k]) for row in top]
        if not isinstance(text, str) or not all(
            -math.inf < x < 1e-4 for row in [log_probs, *map(dict.values, top)] for x in row
        ):
            raise ValueError("no text, or log-probabilities above 0 or not finite")
    except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
        raise RuntimeError(f"APITeacher: a broken answer: {type(error).__name__} {error}") from None
    full = sum(len(row) == k for row in top)
    least = used - (ending if finish == "stop" else 0)
    empty = not (text or tokens or log_probs or top)  # nothing is missing of no tokens
    if k and not empty and not len(tokens) == len(log_probs) == len(top) == full >= least:
        hint = " (if it folds tokens that print alike into one, ask it for ids, or by chat)"
        raise RuntimeError(
            "APITeacher: the server silently leaves the log-probabilities out: "
            f"of {used} tokens it gave {len(log_probs)} log-probabilities, "
            f"and the top {k} of {full}" + (hint if full < len(top) else "")
        )
    return Answer(text, tokens, log_probs, top, finish)


def _without_first(body):
    """An echoed text's scores from its second token on; RuntimeError where it was not echoed."""
    try:
        scores = body["choices"][0]["logprobs"] or {}
        parts = [scores[name] for name in ("tokens", "token_logprobs", "top_logprobs")]
        read = body["usage"]["prompt_tokens"]
        listed, none = {len(part) for part in parts}, [part[1:].count(None) for part in parts]
    except (KeyError, IndexError, TypeError, AttributeError):
        listed, none, read = set(), [], 0
    if listed != {read} or any(none) or not read:
        raise RuntimeError(
            "APITeacher: the server does not score texts: asked to echo one with its "
            f"log-probabilities, it listed {max(listed, default=0)} of {read} tokens"
        )
    for part in parts:
        del part[0]


def _entry(key, answer):
    return {
        "key": key,
        "answer": answer,
        "digest": hashlib.sha256(json.dumps([key, answer]).encode()).hexdigest(),
    }


def _write(path, key, answer):
    # all of it or nothing, though several processes may write
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        (Path(scratch) / "new").write_text(
            json.dumps(_entry(key, asdict(answer))), encoding="utf-8"
        )
        os.replace(Path(scratch) / "new", path)


def _read(path, key):
    with suppress(ValueError, KeyError, TypeError):
        entry = json.loads(path.read_text(encoding="utf-8"))
        if entry == _entry(key, entry["answer"]):
            return Answer(**entry["answer"])
    raise ValueError(f"APITeacher: the kept answer {path} is damaged; delete the file to ask again")


def to_ids(tokens: Sequence[str], tokenizer: Any) -> Tensor:
    """Ids (L,) of L token strings of a server, for a student with the teacher's own vocabulary.

    A string must be a piece of the vocabulary ("Ġthe", "<0x0A>": kdlab.teachers.server), or
    "token_id:N" (vLLM with --return-tokens-as-token-ids), or "bytes:\\xf0\\x9f" for a vocabulary
    that is one of bytes. ValueError for decoded text (" the"), which leads back to no id for
    certain, and for tokens of which the server says only that they print alike.

    >>> to_ids(["token_id:7", "token_id:9"], tokenizer=None)
    tensor([7, 9])
    """
    tokens = listed("to_ids", "tokens", tokens, "a list of strings")
    for token in tokens:
        instance("to_ids", "tokens", token, str, "a list of strings")
    by_id = all(re.fullmatch(r"token_id:\d+", token) for token in tokens)
    if not by_id and not hasattr(tokenizer, "convert_tokens_to_ids"):
        raise TypeError(
            f"to_ids: tokenizer must be a tokenizer of transformers, got {type(tokenizer).__name__}"
        )
    return torch.tensor([_id(token, tokenizer) for token in tokens], dtype=torch.long)


def _id(token, tokenizer):
    if re.fullmatch(r"token_id:\d+", token):
        return int(token.removeprefix("token_id:"))
    if re.match(r"alike:\d+:", token):
        text = token.split(":", 2)[2]
        raise ValueError(
            f"to_ids: tokens: several tokens of the teacher print as {text!r}, "
            "and the server said no more of them; ask it for ids (token_id:N)"
        )
    for piece in [token, *(_pieces(token, tokenizer) if token.startswith("bytes:") else [])]:
        found = tokenizer.convert_tokens_to_ids(piece)
        if found is not None and tokenizer.convert_ids_to_tokens(found) == piece:
            return found
    raise ValueError(
        f"to_ids: tokens: {token!r} is no piece of this tokenizer's vocabulary; "
        "the server must write pieces or token_id:N, and share its vocabulary with the student"
    )


def _pieces(token, tokenizer):
    """How a vocabulary may write the bytes of "bytes:\\xf0": by GPT-2's letters, or as "<0xF0>"."""
    parts = re.findall(r"\\x([0-9a-fA-F]{2})|(.)", token.removeprefix("bytes:"), re.DOTALL)
    data = b"".join(bytes.fromhex(byte) if byte else letter.encode() for byte, letter in parts)
    pieces = ["".join(LETTERS[byte] for byte in data), "".join(f"<0x{byte:02X}>" for byte in data)]
    # elsewhere "ð" is a letter of Icelandic; as a byte it reads as half a character
    return [
        piece
        for piece in pieces
        if tokenizer.convert_tokens_to_string([piece]) == data.decode(errors="replace")
    ]


def to_top_k(answer: Answer, tokenizer: Any) -> tuple[Tensor, Tensor, Tensor]:
    """An answer as kdlab.teachers.sparse.TopK holds it: indices, log_probs (L, k), tail (L,).

    In nats, float32. Row i is the teacher's distribution over token i of
    `to_ids(answer.tokens, tokenizer)`; tail is the log-mass of all other tokens (`log_tail`).
    ValueError where answer has no log-probabilities, or `to_ids` doesn't know a token.

    >>> from tokenizers import Tokenizer, models
    >>> from transformers import PreTrainedTokenizerFast
    >>> words = Tokenizer(models.WordLevel({"no": 0, "yes": 1, "?": 2}))
    >>> tokenizer = PreTrainedTokenizerFast(tokenizer_object=words)
    >>> top = {"yes": math.log(0.5), "no": math.log(0.25)}
    >>> answer = Answer("yes", ["yes"], [top["yes"]], [top], "stop")
    >>> indices, log_probs, tail = to_top_k(answer, tokenizer)
    >>> indices, log_probs.exp(), tail.exp()
    (tensor([[1, 0]]), tensor([[0.5000, 0.2500]]), tensor([0.2500]))
    """
    instance("to_top_k", "answer", answer, Answer, "an Answer of APITeacher")
    if not answer.top:
        raise ValueError(
            "to_top_k: answer must hold log-probabilities; ask for them by top_logprobs=5; "
            f"got none, the text {answer.text!r:.40}, and the finish {answer.finish!r}"
        )
    indices = torch.stack([to_ids(row, tokenizer) for row in answer.top])
    log_probs = torch.tensor([list(row.values()) for row in answer.top], dtype=torch.float64)
    return indices, log_probs.float(), log_tail(log_probs).float()
