"""A teacher behind an API in OpenAI's format: its answers and log-probabilities, kept, counted and paid for once."""

import hashlib
import json
import math
import os
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import urlsplit

import torch

from .sparse import log_tail


@dataclass(frozen=True)
class Answer:
    """What an API's teacher said: text, finish ("stop", "length", …) and, for each of its L tokens, log-probabilities.

    tokens: L strings, as the server writes tokens; log_probs: L numbers in nats; top: L dicts, the k most likely
    tokens → log-probability, likeliest first. The three are empty where none were asked for.

    >>> Answer("no", ["no"], [-0.1], [{"no": -0.1, "yes": -2.5}], "stop").finish
    'stop'
    """

    text: str
    tokens: list
    log_probs: list
    top: list
    finish: str


def _whole(name, value, low, high=math.inf):
    if type(value) is not int or not low <= value <= high:
        raise ValueError(f"APITeacher: {name} must be a whole number from {low} to {high}, got {value!r}")


class APITeacher:
    """A model behind an API in OpenAI's format, hosted or local (kdlab.server, vLLM, llama.cpp).

    base_url: the address up to /v1. api_key: is shown and written nowhere. model: its name there.
    cache: a folder, one file an answer, named by a hash of address, model, prompt and settings; a kept answer is free.
    A file that is damaged is named in a ValueError and not asked for again: asking costs, so deleting it is up to you.
    max_calls: answers that may be asked for, retries not counted. max_cost: dollars, by price = (in, out) dollars per
    million tokens; before a call a bound counts (a token is at least a byte), then the server's own figures. A failed
    call counts by its bound unless refused (4xx); a try that timed out and was repeated may be billed unseen.
    retries: tries after the first, on 429, 5xx, timeouts and broken connections, with back-off (Retry-After up to two
    minutes is honoured). timeout: seconds without a sign of the server. workers: calls at the same time.
    Raises ConnectionError (status and tries named) and RuntimeError (a limit, or an answer that lacks what was asked
    for); answers that came before are in the cache.

    >>> APITeacher("http://127.0.0.1:8000/v1", "secret", "topics_lm", max_calls=100)
    APITeacher('http://127.0.0.1:8000/v1', model='topics_lm': 0 calls, 0.000000 dollars)
    """

    def __init__(self, base_url, api_key, model, cache=None, max_calls=None, max_cost=None, price=None, retries=3,
                 timeout=30.0, workers=4):
        url = urlsplit(base_url)
        if url.scheme not in ("http", "https") or not url.hostname or url.username or url.query:
            raise ValueError("APITeacher: base_url must look like https://host/v1, without a password or a query")
        if not (isinstance(api_key, str) and api_key):
            raise ValueError("APITeacher: api_key must be a text that isn't empty")
        _whole("retries", retries, 0)
        _whole("workers", workers, 1)
        _whole("max_calls", 0 if max_calls is None else max_calls, 0)
        if price is not None and (len(price) != 2 or not all(0 <= p < math.inf for p in price)):
            raise ValueError(f"APITeacher: price must be (in, out) dollars per million tokens, got {price!r}")
        if max_cost is not None and (price is None or not max_cost >= 0):
            raise ValueError(f"APITeacher: max_cost must be 0 or more, with a price, got {max_cost!r} and {price!r}")
        if cache is not None and Path(cache).is_file():
            raise ValueError(f"APITeacher: cache must be a folder, got the file {cache}")
        import openai

        local = url.hostname in ("127.0.0.1", "localhost", "::1")  # a proxy is no way to this machine
        self._client = openai.OpenAI(base_url=base_url, api_key=api_key, max_retries=retries, timeout=timeout,
                                     http_client=openai.DefaultHttpxClient(trust_env=False) if local else None)
        self.url, self.model, self.cache = base_url.rstrip("/"), model, Path(cache) if cache is not None else None
        self.max_calls, self.max_cost, self.price, self.workers = max_calls, max_cost, price or (0, 0), workers
        self.calls, self.cost, self._reserved, self._lock = 0, 0.0, 0.0, threading.Lock()

    def __repr__(self):
        return f"APITeacher({self.url!r}, model={self.model!r}: {self.calls} calls, {self.cost:.6f} dollars)"

    def complete(self, prompts, max_tokens, temperature=0.0, top_logprobs=5, seed=0):
        """Continue texts, by the completions endpoint: prompts → a list of `Answer`; top_logprobs 0: the text only."""
        if isinstance(prompts, str) or not all(isinstance(prompt, str) for prompt in prompts):
            raise TypeError(f"APITeacher: prompts must be a list of texts, got {prompts!r:.80}")
        return self._ask_all("prompt", prompts, {"logprobs": top_logprobs}, max_tokens, temperature, top_logprobs, seed)

    def chat(self, messages, max_tokens, temperature=0.0, top_logprobs=5, seed=0):
        """Answer conversations, by the chat endpoint: a list of [{"role", "content"}, …] → a list of `Answer`."""
        if not all(isinstance(talk, list) and all(isinstance(m, dict) for m in talk) for talk in messages):
            raise TypeError("APITeacher: messages must be a list of conversations, each [{'role': …, 'content': …}, …]"
                            f", got {messages!r:.80}")
        options = {"logprobs": True, "top_logprobs": top_logprobs}
        return self._ask_all("messages", messages, options, max_tokens, temperature, top_logprobs, seed)

    def _ask_all(self, name, prompts, options, max_tokens, temperature, top_logprobs, seed):
        _whole("max_tokens", max_tokens, 1)
        _whole("top_logprobs", top_logprobs, 0, 20)
        requests = [{"model": self.model, name: prompt, "max_tokens": max_tokens, "temperature": float(temperature),
                     "seed": seed, **(options if top_logprobs else {})} for prompt in prompts]
        keys = [json.dumps([self.url, request], sort_keys=True) for request in requests]
        pool = ThreadPoolExecutor(self.workers)
        try:
            futures = {key: pool.submit(self._ask, request, key, top_logprobs)  # the same question twice is asked once
                       for key, request in dict(zip(keys, requests, strict=True)).items()}
            answers = {key: future.result() for key, future in futures.items()}
        finally:
            pool.shutdown(cancel_futures=True)  # after an error: what is under way still comes into the cache
        return [answers[key] for key in keys]

    def _ask(self, request, key, k):
        path = self.cache and self.cache / f"{hashlib.sha256(key.encode()).hexdigest()}.json"
        if path and path.exists():
            return _read(path, key)
        answer = _parse(self._call(request), k)
        if path:
            _write(path, key, answer)
        return answer

    def _call(self, request):
        """The server's answer as a dict, within the limits; what it cost is added up."""
        from openai import OpenAIError

        # a token is at least a byte; the bytes of the settings make up for the template around a conversation
        bound = self._dollars(len(json.dumps(request, ensure_ascii=False).encode()), request["max_tokens"])
        with self._lock:
            for name, reached in {"max_calls": self.calls + 1, "max_cost": self.cost + self._reserved + bound}.items():
                if (limit := getattr(self, name)) is not None and reached > limit:
                    raise RuntimeError(f"{self}: {name} {limit} leaves no room for a call of up to {bound:.6f} dollars "
                                       f"({self._reserved:.6f} under way). Answers are kept in: {self.cache}")
            self.calls, self._reserved = self.calls + 1, self._reserved + bound
        where = self._client.completions if "prompt" in request else self._client.chat.completions
        spent = bound  # what stays where the server doesn't say
        try:
            body = json.loads(where.with_raw_response.create(**request).http_response.text)
            spent = self._dollars(body["usage"]["prompt_tokens"], body["usage"]["completion_tokens"])
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
            return RuntimeError(f"APITeacher: {self.url} gave a broken answer, no JSON or no usage: {error!r}")
        tries = int(error.request.headers["x-stainless-retry-count"]) + 1
        status, headers = getattr(error, "status_code", None), getattr(getattr(error, "response", None), "headers", {})
        what = f"answered {status}" if status else "gave no answer"
        wait = f", asking to wait {headers['retry-after']} s" if "retry-after" in headers else ""
        said = str(error).replace(self._client.api_key, "[key]")
        return ConnectionError(f"APITeacher: {self.url} {what} after {tries} tries{wait}: {said:.300}")


def _parse(body, k):
    """A server's answer → `Answer`, or a RuntimeError that says what is missing."""
    tokens, log_probs, top = [], [], []
    try:
        choice, used = body["choices"][0], body["usage"]["completion_tokens"]
        text, finish = choice["text"] if "text" in choice else choice["message"]["content"], choice["finish_reason"]
        found = choice.get("logprobs") or {}
        if k and "content" in found:
            tokens, log_probs = ([entry[name] for entry in found["content"] or []] for name in ("token", "logprob"))
            top = [{t["token"]: t["logprob"] for t in entry["top_logprobs"]} for entry in found["content"] or []]
        elif k:
            tokens, log_probs, top = (found.get(name) or [] for name in ("tokens", "token_logprobs", "top_logprobs"))
        top = [dict(sorted(row.items(), key=lambda pair: -pair[1])[:k]) for row in top]
        if not isinstance(text, str) or not all(-math.inf < x < 1e-4 for row in [log_probs, *map(dict.values, top)]
                                                for x in row):
            raise ValueError("no text, or log-probabilities above 0 or not finite")
    except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
        raise RuntimeError(f"APITeacher: a broken answer: {type(error).__name__} {error}") from None
    # a server may count the token that ends an answer and not list it
    full = sum(len(row) == k for row in top)
    if k and not len(tokens) == len(log_probs) == len(top) == full >= used - (finish == "stop"):
        raise RuntimeError("APITeacher: the server silently leaves the log-probabilities out: of "
                           f"{used} tokens it gave {len(log_probs)} log-probabilities, and the top {k} of {full}")
    return Answer(text, tokens, log_probs, top, finish)


def _entry(key, answer):
    return {"key": key, "answer": answer, "digest": hashlib.sha256(json.dumps([key, answer]).encode()).hexdigest()}


def _write(path, key, answer):
    path.parent.mkdir(parents=True, exist_ok=True)  # all of it or nothing, though several processes may write
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        (Path(scratch) / "new").write_text(json.dumps(_entry(key, asdict(answer))), encoding="utf-8")
        os.replace(Path(scratch) / "new", path)


def _read(path, key):
    with suppress(ValueError, KeyError, TypeError):
        entry = json.loads(path.read_text(encoding="utf-8"))
        if entry == _entry(key, entry["answer"]):
            return Answer(**entry["answer"])
    raise ValueError(f"APITeacher: the kept answer {path} is damaged; delete the file to ask again")


def to_ids(tokens, tokenizer):
    """Ids (L,) of L token strings of a server, for a student with the teacher's own vocabulary.

    A string must be a piece of the vocabulary ("Ġthe", "<0x0A>": kdlab.server) or "token_id:N" (vLLM with
    --return-tokens-as-token-ids). ValueError for decoded text (" the"), which leads back to no id for certain.

    >>> to_ids(["token_id:7", "token_id:9"], tokenizer=None)
    tensor([7, 9])
    """
    ids = []
    for token in tokens:
        known = token.startswith("token_id:")
        ids.append(int(token.removeprefix("token_id:")) if known else tokenizer.convert_tokens_to_ids(token))
        if not known and (ids[-1] is None or tokenizer.convert_ids_to_tokens(ids[-1]) != token):
            raise ValueError(f"to_ids: the token {token!r} is no piece of this tokenizer's vocabulary; the server must "
                             "write pieces or token_id:N, and share its vocabulary with the student")
    return torch.tensor(ids, dtype=torch.long)


def to_top_k(answer, tokenizer):
    """An answer as what kdlab.sparse.TopK holds: indices (L, k), log_probs (L, k), tail (L,), in nats, float32.

    Row i is the teacher's distribution over token i of `to_ids(answer.tokens, tokenizer)`; tail is the log-mass of all
    other tokens (`log_tail`). ValueError where answer has no log-probabilities, or `to_ids` doesn't know a token.

    >>> from tokenizers import Tokenizer, models
    >>> from transformers import PreTrainedTokenizerFast
    >>> tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({"no": 0, "yes": 1, "?": 2})))
    >>> answer = Answer("yes", ["yes"], [math.log(0.5)], [{"yes": math.log(0.5), "no": math.log(0.25)}], "stop")
    >>> indices, log_probs, tail = to_top_k(answer, tokenizer)
    >>> indices, log_probs.exp(), tail.exp()
    (tensor([[1, 0]]), tensor([[0.5000, 0.2500]]), tensor([0.2500]))
    """
    if not answer.top:
        raise ValueError("to_top_k: answer must hold log-probabilities; ask for them by top_logprobs=5")
    indices = torch.stack([to_ids(row, tokenizer) for row in answer.top])
    log_probs = torch.tensor([list(row.values()) for row in answer.top], dtype=torch.float64)
    return indices, log_probs.float(), log_tail(log_probs).float()
