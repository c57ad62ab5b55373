"""A teacher behind HTTP on your own machine, in the format of OpenAI's API.

Started by `kdlab serve MODEL_OR_DIRECTORY [--port N]`, or by `serve` in a notebook or a test.

- A token is written as its piece of the vocabulary ("Ġthe", "<0x0A>"), not as decoded text: pieces
  lead back to one id each, decoded text does not. An id that has no piece (a padded vocabulary) is
  "token_id:N".
- Log-probabilities are those of the model at temperature 1, whatever temperature samples; −inf is
  written −9999.
- The token that ends an answer counts and is listed among the tokens; the text leaves it out, and a
  stop string too.
- One seed, one answer: a prompt in a batch answers as it does alone, and another prompt gets other
  noise.
- A chat without a template of its own is written "role: content", one message a line, then
  "assistant:".
"""

import argparse
import random
import secrets
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import torch
from torch import nn

from kdlab.base.arguments import instance
from kdlab.base.extras import needs
from kdlab.base.lab import setup
from kdlab.students.pretrained import language_model

with needs("serve", asked="serve", why="a server needs"):
    import uvicorn
    from fastapi import FastAPI
    from fastapi.exceptions import RequestValidationError
    from fastapi.responses import JSONResponse
    from pydantic import BaseModel, Field
    from starlette.exceptions import HTTPException


# what is not named here is refused
class _Request(BaseModel, strict=True, extra="forbid"):  # type: ignore[call-arg]
    model: str
    max_tokens: int | None = Field(None, ge=0)
    temperature: float = Field(1.0, ge=0, le=2)
    seed: int = Field(default_factory=lambda: secrets.randbits(62))
    stop: str | Annotated[list[str], Field(max_length=4)] = []
    n: int = Field(1, ge=1, le=8)
    stream: Literal[False] = False


class _Completion(_Request):
    prompt: str | Annotated[list[str], Field(min_length=1, max_length=64)]  # computed as one batch
    logprobs: int | None = Field(None, ge=0, le=20)
    echo: bool = False


class _Chat(_Request):
    messages: list[dict[str, str]] = Field(min_length=1)
    logprobs: bool = False
    top_logprobs: int = Field(0, ge=0, le=20)


def _scored(logits, ids, k):
    """(L, V) logits and the L ids that came → L of (id, its log-probability, {id: log-probability}
    of the top k)."""
    log_probs = logits.float().log_softmax(-1).clamp_min(-9999.0)
    own = log_probs.gather(-1, torch.tensor(ids, dtype=torch.long, device=logits.device)[:, None])[
        :, 0
    ].tolist()
    values, indices = (part.tolist() for part in log_probs.topk(min(k, log_probs.shape[-1])))
    return [
        (i, x, dict(zip(*top, strict=True)))
        for i, x, *top in zip(ids, own, indices, values, strict=True)
    ]


def _continue(model, prompts, generators, ended, k, max_tokens, temperature):
    """What the model adds to prompts (lists of ids): a list a prompt, as from `_scored`, until
    ended(row, new ids)."""
    width = max(map(len, prompts))
    ids = torch.tensor([[0] * (width - len(row)) + row for row in prompts], device=model.device)
    mask = torch.tensor(
        [[0] * (width - len(row)) + [1] * len(row) for row in prompts], device=model.device
    )
    new, live, past = [[] for _ in prompts], set(range(len(prompts))), None
    while live and max(map(len, new)) < max_tokens:
        # padding on the left, and positions that start at each row's first token: a row sees what
        # it would see alone
        positions = (mask.cumsum(1) - 1).clamp_min(0)[:, -ids.shape[1] :]
        out = model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=past,
            use_cache=True,
            logits_to_keep=1,
        )
        logits, past = out.logits[:, -1].float(), out.past_key_values
        chosen = (
            logits.argmax(-1).tolist()
            if temperature == 0
            else [
                torch.multinomial(p, 1, generator=generator).item()
                for p, generator in zip(
                    ((logits - logits.amax(-1, keepdim=True)) / temperature).softmax(-1).cpu(),
                    generators,
                    strict=True,
                )
            ]
        )
        scores = _scored(logits, chosen, k)
        for i in tuple(live):
            new[i].append(scores[i])
            if ended(i, [token for token, _, _ in new[i]]):
                live.remove(i)
        ids, mask = (
            torch.tensor(chosen, device=ids.device)[:, None],
            torch.cat([mask, torch.ones_like(mask[:, :1])], 1),
        )
    return new


def _prompts(body, tokenizer):
    """The prompts of a request as lists of ids."""
    if isinstance(body, _Completion):
        return tokenizer([body.prompt] if isinstance(body.prompt, str) else body.prompt)[
            "input_ids"
        ]
    try:
        if tokenizer.chat_template:
            return [
                tokenizer.apply_chat_template(
                    body.messages, add_generation_prompt=True, return_dict=False
                )
            ]
        return tokenizer(
            ["".join(f"{m['role']}: {m['content']}\n" for m in body.messages) + "assistant:"]
        )["input_ids"]
    except (
        Exception
    ) as error:  # a template is a program that came with the model and may refuse by any error
        raise HTTPException(
            400, f"messages: must hold role and content, in the model's order: {error}"
        ) from error


@dataclass(frozen=True)
class _Asked:
    """A request as the model sees it: rows of ids, how many more, and how they are chosen."""

    prompts: list[list[int]]
    rows: list[list[int]]  # each prompt `n` times
    generators: list[torch.Generator]
    max_tokens: int
    temperature: float
    stop: list[str]
    top: int
    echo: bool


def _parsed(model, tokenizer, body):
    """What is asked of the model; HTTPException 400 where it can't be done."""
    chat = isinstance(body, _Chat)
    top, echo = (body.top_logprobs, False) if chat else (body.logprobs or 0, body.echo)
    prompts = _prompts(body, tokenizer)
    rows = [row for row in prompts for _ in range(body.n)]
    room = getattr(model.config, "max_position_embeddings", 2**20) - max(map(len, rows))
    usual = room if chat else min(16, room)
    max_tokens = usual if body.max_tokens is None else body.max_tokens
    if not all(rows) or not (0 if echo else 1) <= max_tokens <= room:
        raise HTTPException(
            400,
            "max_tokens: must be 1 or more (0 with echo) after a prompt of 1 token or more, and "
            f"at most {room}, the rest of the model's context; got {max_tokens}",
        )
    drawn = (f"{body.seed} {i % body.n} {row}" for i, row in enumerate(rows))
    generators = [
        torch.Generator().manual_seed(random.Random(seed).getrandbits(62)) for seed in drawn
    ]
    stop = [body.stop] if isinstance(body.stop, str) else body.stop
    stop = [text for text in stop if text]
    return _Asked(prompts, rows, generators, max_tokens, body.temperature, stop, top, echo)


class _Reader:
    """Turns new ids into text, and says where an answer ends."""

    def __init__(self, model, tokenizer, asked):
        ends = model.generation_config.eos_token_id
        self.ends = ends if isinstance(ends, list) else [ends]
        self.tokenizer, self.asked = tokenizer, asked

    def decode(self, ids):
        """The text of ids, without special tokens."""
        return self.tokenizer.decode(ids, skip_special_tokens=True)

    def said(self, i, ids):
        """The text of new ids up to a stop string, and whether they end the answer."""
        row = self.asked.rows[i]
        # read after its prompt, a first token keeps its leading space
        text = self.decode(row + ids)[len(self.decode(row)) :]
        found = [at for at in map(text.find, self.asked.stop) if at >= 0]
        return text[: min(found, default=None)], bool(found) or ids[-1] in self.ends

    def piece(self, i):
        """A token as the vocabulary writes it."""
        return self.tokenizer.convert_ids_to_tokens(i) or f"token_id:{i}"


@torch.no_grad()
def _sampled(model, asked, reader):
    """The new tokens of each row, scored; with echo also those of the prompts, in front."""
    new = _continue(
        model,
        asked.rows,
        asked.generators,
        lambda i, ids: reader.said(i, ids)[1],
        asked.top,
        asked.max_tokens,
        asked.temperature,
    )
    before = [[] for _ in asked.rows]
    for i, row in enumerate(asked.rows if asked.echo else ()):
        logits = model(torch.tensor([row], device=model.device)).logits[0, :-1]
        before[i] = [(row[0], None, None), *_scored(logits, row[1:], asked.top)]
    return new, before


def _chat_logprobs(found, piece):
    """Scored tokens in the format of chat completions."""

    def told(i, x):
        return {"token": piece(i), "logprob": x, "bytes": None}

    return {
        "content": [
            told(i, x) | {"top_logprobs": [told(j, y) for j, y in top.items()]}
            for i, x, top in found
        ]
    }


def _text_logprobs(found, piece):
    """Scored tokens in the format of text completions."""
    return {
        "tokens": [piece(i) for i, _, _ in found],
        "token_logprobs": [x for _, x, _ in found],
        "top_logprobs": [
            None if x is None else {piece(j): y for j, y in (top | {i: x}).items()}
            for i, x, top in found
        ],
        "text_offset": None,
    }


def _formatted(body, asked, new, before, reader):
    """The answer in OpenAI's format."""
    chat = isinstance(body, _Chat)
    listed = _chat_logprobs if chat else _text_logprobs
    choices = []
    for i, row in enumerate(asked.rows):
        text, ended = reader.said(i, [token for token, _, _ in new[i]]) if new[i] else ("", False)
        text = reader.decode(row) + text if asked.echo else text
        asks = body.logprobs is not None and body.logprobs is not False
        choice = {
            "index": i,
            "finish_reason": "stop" if ended else "length",
            "logprobs": listed([*before[i], *new[i]], reader.piece) if asks else None,
        }
        message = {"role": "assistant", "content": text}
        choices.append(choice | ({"message": message} if chat else {"text": text}))
    usage = {"prompt_tokens": sum(map(len, asked.prompts)), "completion_tokens": sum(map(len, new))}
    return {
        "id": f"cmpl-{secrets.token_hex(12)}",
        "object": "chat.completion" if chat else "text_completion",
        "created": int(time.time()),
        "model": body.model,
        "choices": choices,
        "usage": usage | {"total_tokens": sum(usage.values())},
    }


def _answer(model, tokenizer, body):
    """The answer to a request: parsed, sampled, formatted."""
    asked = _parsed(model, tokenizer, body)
    reader = _Reader(model, tokenizer, asked)
    return _formatted(body, asked, *_sampled(model, asked, reader), reader)


def _guard(api, token):
    """Refuse who brings no token; tell errors in OpenAI's format."""

    @api.exception_handler(HTTPException)
    async def refuse(request, error):
        problem = {
            "message": error.detail,
            "type": "invalid_request_error",
            "param": None,
            "code": None,
        }
        return JSONResponse({"error": problem}, error.status_code)

    @api.exception_handler(RequestValidationError)
    async def malformed(request, error):
        where, why, got = (error.errors()[0][key] for key in ("loc", "msg", "input"))
        why = "this server does not stream" if "stream" in where else why
        return await refuse(
            request, HTTPException(400, f"{'.'.join(map(str, where))}: {why}, got {got!r:.80}")
        )

    @api.middleware("http")
    async def authorise(request, call_next):
        given = request.headers.get("authorization", "").encode()
        right = secrets.compare_digest(given, f"Bearer {token}".encode())
        return await (
            call_next(request)
            if right
            else refuse(request, HTTPException(401, "wrong or no bearer token"))
        )


def app(model, tokenizer, token, name="teacher"):
    """The FastAPI application by which a causal language model answers to bearers of a token.

    GET /v1/models, POST /v1/completions, POST /v1/chat/completions, as in OpenAI's API reference,
    without streaming; 401 without the token. Raises ValueError where a module of the model is in
    train mode.

    >>> app(torch.nn.Linear(2, 2), None, "token")
    Traceback (most recent call last):
    ValueError: app: model must be in eval mode (model.eval()), got train mode in the whole model
    """
    instance("app", "model", model, torch.nn.Module, "an nn.Module")
    if training := [name for name, module in model.named_modules() if module.training]:
        where = training[0] or "the whole model"
        raise ValueError(
            f"app: model must be in eval mode (model.eval()), got train mode in {where}"
        )
    api, lock = FastAPI(docs_url=None, redoc_url=None, openapi_url=None), threading.Lock()

    _guard(api, token)

    @api.get("/v1/models")
    def models():
        return {
            "object": "list",
            "data": [{"id": name, "object": "model", "created": 0, "owned_by": "kdlab"}],
        }

    for path, form in {"completions": _Completion, "chat/completions": _Chat}.items():

        @api.post(f"/v1/{path}")
        def answer(body: form):
            asked: Any = body
            if asked.model != name:
                raise HTTPException(404, f"model: must be {name!r}, got {asked.model!r}")
            with lock:  # one model, one tokenizer: one request at a time
                return _answer(model, tokenizer, body)

    return api


@dataclass(frozen=True)
class Server:
    """Where a served model is asked: url ("http://127.0.0.1:PORT/v1"), token (not shown when
    printed), name."""

    url: str
    token: str = field(repr=False)
    name: str = "teacher"


@contextmanager
def serve(
    model: nn.Module, tokenizer: Any, port: int = 0, name: str = "teacher"
) -> Iterator[Server]:
    """Serve a model while a `with` block lasts: a `Server`, on 127.0.0.1 only, at a free port where
    port is 0.

    The token is drawn afresh. Raises OSError where the port is taken, ValueError where the model is
    in train mode.

    >>> with serve(torch.nn.Linear(2, 2).eval(), None) as server:
    ...     print(server)
    Server(url='http://127.0.0.1:.../v1', name='teacher')
    """
    token = secrets.token_urlsafe(24)
    server = uvicorn.Server(
        uvicorn.Config(
            app(model, tokenizer, token, name),
            log_level="warning",
            access_log=False,
            timeout_graceful_shutdown=5,
        )
    )
    with socket.create_server(("127.0.0.1", port)) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        try:
            while thread.is_alive() and not server.started:
                time.sleep(0.01)
            yield Server(f"http://127.0.0.1:{listener.getsockname()[1]}/v1", token, name)
        finally:
            server.should_exit = True
            thread.join()


def main(arguments):
    """Serve a model until Ctrl-C, after printing the address and the token, which is written
    nowhere else."""
    parser = argparse.ArgumentParser(
        prog="python -m kdlab.teachers.server", description=main.__doc__
    )
    parser.add_argument("model", help="a directory or a hub id")
    parser.add_argument("--port", type=int, default=0, help="a free one when not given")
    chosen = parser.parse_args(arguments)
    setup()
    with serve(*language_model(chosen.model), chosen.port) as server, suppress(KeyboardInterrupt):
        print(f"url    {server.url}\ntoken  {server.token}\nmodel  {server.name}", flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main(sys.argv[1:])
