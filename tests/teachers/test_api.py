"""The teacher behind an API: against a real model on this machine, and against a server that
misbehaves."""

import hashlib
import json
import math
import re
import tempfile
import threading
import traceback
import warnings
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import chain, repeat
from pathlib import Path

import pytest
import tokenizers
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

import kdlab as kd
from kdlab.teachers.api import Answer, to_ids, to_top_k
from kdlab.teachers.server import serve

KEY = "sk-very-secret-1234567890"
SCORES = {
    "tokens": ["a", "b"],
    "token_logprobs": [-0.5, -1.0],
    "top_logprobs": [{"c": -1.5, "a": -0.5}, {"b": -1.0, "a": -1.2, "z": -9.0}],
}
SOON = {"retry-after-ms": "1"}
USAGE = {"prompt_tokens": 10, "completion_tokens": 2}
GOOD = {"choices": [{"text": "ab", "finish_reason": "length", "logprobs": SCORES}], "usage": USAGE}


@contextmanager
def misbehaving(*replies):
    """A server that gives (status, body, headers) in turn, the last for ever.

    A number as body: seconds to wait. A reply may be a function of the request that returns them.
    """
    seen, turn, done = [], chain(replies, repeat(replies[-1])), threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            request = json.loads(self.rfile.read(int(self.headers["content-length"])))
            seen.append(request)
            reply = next(turn)
            status, body, headers = reply(request) if callable(reply) else reply
            if isinstance(body, float):
                done.wait(body)
                body = GOOD
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            for pair in (
                {"content-type": "application/json", "content-length": str(len(data))} | headers
            ).items():
                self.send_header(*pair)
            self.end_headers()
            self.wfile.write(data)

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/v1", seen
        finally:
            done.set()
            server.shutdown()


def teacher(url, **options):
    options = {"retries": 2, "timeout": 5.0, "workers": 1} | options
    return kd.APITeacher(url, KEY, "some model", **options)


def choice(**changes):
    return GOOD | {"choices": [GOOD["choices"][0] | changes]}


@pytest.fixture(scope="module")
def served():
    folder = Path(__file__).parents[2] / "data" / "teachers" / "topics_lm"
    model, tokenizer = kd.language_model(str(folder))
    with serve(model, tokenizer) as server:
        yield server, model, tokenizer


def test_answers_of_a_real_model_become_its_own_distribution(served, tmp_path):
    server, model, tokenizer = served
    prompts, cost = ["The function returns", "A list of", "The function returns"], 0
    asked = kd.APITeacher(server.url, server.token, "teacher", cache=tmp_path, price=(1.0, 2.0))
    answers = asked.complete(prompts, 8, top_logprobs=4)
    for prompt, answer in zip(prompts, answers, strict=True):
        ids, new = tokenizer(prompt)["input_ids"], to_ids(answer.tokens, tokenizer).tolist()
        generated = model.generate(
            torch.tensor([ids]), max_new_tokens=8, do_sample=False, pad_token_id=0
        )[0].tolist()
        assert (
            ids + new == generated
            and answer.text == tokenizer.decode(new)
            and answer.finish == "length"
        )
        with torch.no_grad():
            rows = (
                model(torch.tensor([ids + new]))
                .logits[0, len(ids) - 1 : -1]
                .double()
                .log_softmax(-1)
            )
        values, expected = rows.topk(4)
        rest = rows.exp().scatter(1, expected, 0).sum(1).log()
        for found, wanted in zip(
            to_top_k(answer, tokenizer), (expected, values.float(), rest.float()), strict=True
        ):
            torch.testing.assert_close(found, wanted, rtol=0, atol=1e-3)
        assert answer.log_probs == pytest.approx(
            rows.gather(1, torch.tensor(new)[:, None])[:, 0].tolist(), abs=1e-4
        )
        cost += (len(ids) + 2 * 8) / 1e6
    assert asked.calls == 2 and asked.cost == pytest.approx(
        cost - (len(ids) + 2 * 8) / 1e6
    )  # the third is the first
    again = kd.APITeacher(server.url, "a wrong key", "teacher", cache=tmp_path, max_calls=0)
    assert (
        again.complete(prompts, 8, top_logprobs=4) == answers
        and again.calls == 0
        and again.cost == 0
    )


def test_chat_and_many_at_once(served):
    server = served[0]
    asked = kd.APITeacher(server.url, server.token, "teacher")
    talks = [
        [{"role": "user", "content": word}]
        for word in ("lists", "files", "sets", "errors", "names")
    ]
    plain = asked.complete(
        [f"user: {talk[0]['content']}\nassistant:" for talk in talks], 4, top_logprobs=2
    )
    for answer, same in zip(asked.chat(talks, 4, top_logprobs=2), plain, strict=True):
        assert (answer.text, answer.tokens, answer.finish) == (same.text, same.tokens, same.finish)
        assert [list(row) for row in answer.top] == [list(row) for row in same.top]
    drawn = asked.complete(["The"], 8, 1.0, top_logprobs=0, seed=1)
    assert drawn[0].top == drawn[0].tokens == [] and drawn != asked.complete(
        ["The"], 8, 1.0, top_logprobs=0, seed=2
    )


def test_the_request_and_the_top_k_likeliest_first():
    with misbehaving((200, GOOD, {})) as (url, seen):
        answer = teacher(url).complete(["x"], 7, temperature=0.5, top_logprobs=2, seed=3)[0]
        teacher(url).complete([""], 7, top_logprobs=0)
    assert seen[0] == {
        "model": "some model",
        "prompt": "x",
        "max_tokens": 7,
        "temperature": 0.5,
        "seed": 3,
        "logprobs": 2,
    }
    assert "logprobs" not in seen[1] and seen[1]["temperature"] == 0
    assert [list(row) for row in answer.top] == [["a", "c"], ["b", "a"]] and answer.log_probs == [
        -0.5,
        -1.0,
    ]


@pytest.mark.parametrize(
    "failure",
    [
        (429, {}, {"retry-after": "7"}),
        (500, {}, {"retry-after": "7"}),
        (503, b"<html>", {}),
        (200, b"cut", {"content-length": "10"}),
    ],
)
def test_what_passes_is_tried_again_after_the_time_asked_for(failure, monkeypatch):
    waited = []
    monkeypatch.setattr("time.sleep", waited.append)
    with misbehaving(failure, (200, GOOD, {})) as (url, seen):
        asked = teacher(url, max_calls=1)
        assert (
            asked.complete(["x"], 2, top_logprobs=2)[0].text == "ab"
            and asked.calls == 1
            and len(seen) == 2
        )
    assert (7 in waited) == ("retry-after" in failure[2]) and max(
        waited
    ) > 0.3  # else openai's own back-off


@pytest.mark.parametrize(
    "failure, words, tries",
    [
        (
            (429, {"error": {"message": "slow down"}}, SOON),
            "answered 429 after 3 tries.*slow down",
            3,
        ),
        ((429, {}, {"retry-after": "500"}), "answered 429 after 1 tries, asking to wait 500 s", 1),
        ((500, b"<html>oops", SOON), "answered 500 after 3 tries", 3),
        (
            (401, {"error": {"message": f"wrong key {KEY}"}}, {}),
            r"answered 401 after 1 tries.*wrong key \[key\]",
            1,
        ),
        ((400, {}, {}), "answered 400 after 1 tries", 1),
    ],
)
def test_what_stays_is_an_error_with_status_and_tries(failure, words, tries):
    with misbehaving(failure) as (url, seen):
        asked = teacher(url, price=(1, 1))
        with pytest.raises(ConnectionError, match=words) as caught:
            asked.complete(["x"], 2)
    assert len(seen) == tries and (asked.cost == 0) == (failure[0] < 500)
    assert KEY not in "".join(traceback.format_exception(caught.value)) and KEY not in repr(asked)


def test_a_slow_server():
    with misbehaving((200, 30.0, {})) as (url, seen):
        with pytest.raises(ConnectionError, match="gave no answer after 2 tries.*timed out"):
            teacher(url, timeout=0.2, retries=1).complete(["x"], 2)
        assert len(seen) == 2


@pytest.mark.parametrize(
    "body, words",
    [
        (b"{broken", "broken answer"),
        (b"", "broken answer"),
        (b"[]", "broken answer"),
        ({"choices": []}, "broken answer"),
        ({"usage": USAGE}, "broken answer: KeyError 'choices'"),
        (GOOD | {"choices": []}, "broken answer"),
        (GOOD | {"choices": None}, "broken answer"),
        (GOOD | {"usage": None}, "broken answer"),
        (choice(text=None), "broken answer"),
        (choice(logprobs=SCORES | {"token_logprobs": [0.5, -1]}), "above 0"),
        (choice(logprobs=SCORES | {"token_logprobs": [math.nan, -1]}), "not finite"),
        *[
            (choice(logprobs=found), "the server silently leaves the log-probabilities out")
            for found in (
                None,
                {},
                {name: part[:1] for name, part in SCORES.items()},
                SCORES | {"top_logprobs": [{"a": -0.5}, {"b": -1.0, "a": -1.2}]},
                SCORES | {"top_logprobs": None},
                {"content": None},
            )
        ],
    ],
)
def test_a_broken_answer_is_an_error_and_is_not_kept(body, words, tmp_path):
    with misbehaving((200, body, {})) as (url, seen):
        with pytest.raises(RuntimeError, match=words):
            teacher(url, cache=tmp_path).complete(["x"], 2, top_logprobs=2)
    assert len(seen) == 1 and not list(tmp_path.iterdir())


def test_the_end_token_may_be_counted_and_not_listed():
    usage = USAGE | {"completion_tokens": 3}
    replies = [(200, body | {"usage": usage}, {}) for body in (choice(finish_reason="stop"), GOOD)]
    with misbehaving(*replies) as (url, _):
        assert len(teacher(url).complete(["x"], 3, top_logprobs=2)[0].tokens) == 2
        with pytest.raises(RuntimeError, match="of 3 tokens it gave 2"):
            teacher(url).complete(["x"], 3, top_logprobs=2)


def test_limits_on_calls_and_cost_keep_what_was_answered(tmp_path):
    with misbehaving((200, GOOD, {})) as (url, seen):
        asked = teacher(url, cache=tmp_path, max_calls=3)
        with pytest.raises(RuntimeError, match="3 calls, .*max_calls 3 leaves no room"):
            asked.complete(list("abcde"), 2, top_logprobs=2)
        assert (
            len(list(tmp_path.iterdir())) == 3
            and asked.complete(list("cab"), 2, top_logprobs=2)
            and len(seen) == 3
        )
        # 10 tokens in and 2 out at 1 and 100 dollars a million: 210 a call; the bound: 200 and the
        # request's bytes
        asked = teacher(url, max_cost=1000e-6, price=(1.0, 100.0))
        with pytest.raises(
            RuntimeError, match=r"4 calls, 0.000840 dollars.*max_cost 0.001 leaves no room"
        ):
            asked.complete(list("abcdefgh"), 2, top_logprobs=2)
        for limit, prompt in (
            (0, "x"),
            (200e-6, "x"),
            (1000e-6, "é" * 400),
        ):  # a long prompt costs by its bytes
            with pytest.raises(RuntimeError, match="0 calls, 0.000000 dollars"):
                teacher(url, max_cost=limit, price=(1.0, 100.0)).complete(
                    [prompt], 2, top_logprobs=2
                )
        assert len(seen) == 7 and asked.cost == pytest.approx(840e-6)
    with misbehaving((200, 0.5, {})) as (
        url,
        seen,
    ):  # calls under way count by their bounds, about 310 each
        asked = teacher(url, workers=4, max_cost=700e-6, price=(1.0, 100.0))
        with pytest.raises(RuntimeError, match="no room"):
            asked.complete(list("abcd"), 2, top_logprobs=2)
        assert len(seen) == 2 and asked.cost == pytest.approx(420e-6)


def test_each_setting_has_its_own_answer_and_no_file_holds_the_key(tmp_path):
    with misbehaving((200, GOOD, {})) as (url, seen):
        asked = teacher(url, cache=tmp_path / "new" / "folder")
        base = {"prompts": ["x"], "max_tokens": 2, "temperature": 0, "top_logprobs": 2, "seed": 0}
        for name, value in [
            ("seed", 0),
            ("prompts", ["y"]),
            ("max_tokens", 3),
            ("temperature", 1),
            ("top_logprobs", 1),
            ("seed", 1),
            ("seed", 0),
        ]:
            asked.complete(**base | {name: value})
        asked.chat([[{"role": "user", "content": "x"}]], 2, top_logprobs=0)
        other = kd.APITeacher(url, KEY, "another model", cache=asked.cache)
        assert other.complete(**base) == asked.complete(**base) and len(seen) == 8
    files = list(asked.cache.iterdir())
    assert len(files) == 8 and all(re.fullmatch(r"[0-9a-f]{64}\.json", file.name) for file in files)
    assert not any(KEY in file.read_text() for file in files)


@pytest.mark.parametrize(
    "damage",
    [
        lambda t: t[:-9],
        lambda t: "",
        lambda t: "{}",
        lambda t: t.replace("-0.5", "-0.4"),
        lambda t: t.replace('\\"x\\"', '\\"y\\"'),
        lambda t: "[]",
    ],
)
def test_a_damaged_answer_is_named_and_not_used(damage, tmp_path):
    with misbehaving((200, GOOD, {})) as (url, seen):
        kept = teacher(url, cache=tmp_path).complete(["x"], 2, top_logprobs=2)
        (file,) = tmp_path.iterdir()
        file.write_text(damage(file.read_text()))
        with pytest.raises(ValueError, match=f"{file.name} is damaged; delete the file"):
            teacher(url, cache=tmp_path).complete(["x"], 2, top_logprobs=2)
        file.unlink()
        assert (
            teacher(url, cache=tmp_path).complete(["x"], 2, top_logprobs=2) == kept
            and len(seen) == 2
        )


def test_tokens_lead_back_to_their_ids_or_are_refused(served):
    tokenizer = served[2]
    pieces = tokenizer.convert_ids_to_tokens(list(range(512)))
    assert to_ids([*pieces, "token_id:600"], tokenizer).tolist() == [*range(512), 600]
    for token in (" the", "\n", "not a piece"):
        with pytest.raises(ValueError, match="is no piece of this tokenizer's vocabulary"):
            to_ids(["a", token], tokenizer)
    with pytest.raises(ValueError, match="must hold log-probabilities"):
        to_top_k(Answer("a", [], [], [], "stop"), tokenizer)
    tail = to_top_k(
        Answer("a", ["a"], [0.0], [{"a": math.log1p(-1e-9), "b": -40.0}], "stop"), tokenizer
    )[2]
    assert tail.item() == pytest.approx(math.log(1e-9), abs=1e-4)


@pytest.mark.parametrize(
    "options, words",
    [
        ({"base_url": "127.0.0.1"}, "base_url"),
        ({"base_url": "http://me:secret@host/v1"}, "base_url"),
        ({"api_key": ""}, "api_key"),
        ({"retries": -1}, "retries"),
        ({"workers": 0}, "workers"),
        ({"price": (1,)}, "price"),
        ({"max_calls": 1.5}, "max_calls"),
        ({"max_cost": 1}, "max_cost"),
        ({"cache": __file__}, "cache"),
    ],
)
def test_bad_arguments_are_named(options, words):
    with pytest.raises(ValueError, match=f"^APITeacher: {words} must") as caught:
        plain = {"base_url": "http://127.0.0.1:1/v1", "api_key": KEY, "model": "m"}
        kd.APITeacher(**plain | options)
    assert KEY not in str(caught.value) and "secret" not in str(caught.value)
    asked = teacher("http://127.0.0.1:1/v1")
    for call, kind in (
        (lambda: asked.complete(["x"], 0), ValueError),
        (lambda: asked.complete("x", 1), TypeError),
        (lambda: asked.complete(["x"], 1, top_logprobs=21), ValueError),
        (lambda: asked.chat([{"role": "user", "content": "x"}], 1), TypeError),
    ):
        with pytest.raises(kind, match="^APITeacher: .* must be"):
            call()
    assert asked.calls == 0 and asked.complete([], 1) == []


def test_a_proxy_is_no_way_to_this_machine(monkeypatch):
    for variable in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(variable, "http://127.0.0.1:1")
    for variable in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(variable, raising=False)
    with misbehaving((200, GOOD, {})) as (url, seen):
        assert (
            teacher(url, retries=0).complete(["x"], 2, top_logprobs=2)[0].text == "ab"
            and len(seen) == 1
        )


def test_after_an_error_what_was_not_begun_is_not_asked():
    with misbehaving((400, {"error": "no"}, {})) as (url, seen):
        with pytest.raises(ConnectionError, match="answered 400"):
            teacher(url, retries=0).complete([f"question {i}" for i in range(50)], 2)
        assert len(seen) < 25  # one worker: those under way when the first error came


def test_a_word_that_the_tokenizer_only_knows_as_unknown_is_refused():
    words = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({"[UNK]": 0, "no": 1}, unk_token="[UNK]")
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]")
    assert to_ids(["no"], tokenizer).tolist() == [1]
    with pytest.raises(ValueError, match="'yes' is no piece"):
        to_ids(["yes"], tokenizer)


def said(message, finish="stop", entries=None, used=1):
    """The body of an answer by chat; entries: its tokens' log-probabilities."""
    return {
        "choices": [
            {
                "message": {"role": "assistant"} | message,
                "finish_reason": finish,
                "logprobs": {"content": entries},
            }
        ],
        "usage": {"prompt_tokens": 10, "completion_tokens": used},
    }


def entry(token, *top, logprob=-0.5):
    """A token of an answer by chat; top: (text, log-probability, what else is said of it)."""
    top = [{"token": text, "logprob": x} | more for text, x, more in top]
    return token | {"logprob": logprob, "top_logprobs": top}


YES = said(
    {"content": "yes", "refusal": None},
    entries=[entry({"token": "yes"}, ("yes", -0.5, {}), ("no", -1.5, {}))],
)
NO_WORD = {"content": None, "refusal": [{"token": "I", "logprob": -0.1, "top_logprobs": []}]}


def talks(count):
    return [[{"role": "user", "content": str(i)}] for i in range(count)]


def number(request):
    """Which prompt of `talks`, or of a list of texts that are numbers, a request is for."""
    return int(request["prompt"] if "prompt" in request else request["messages"][0]["content"])


@pytest.mark.parametrize(
    "body, finish",
    [
        (said({"content": None, "refusal": "I can't help with that."}), "refusal"),
        (said({"content": None, "refusal": "I can't."}, used=9), "refusal"),
        (said({"content": "", "refusal": "I can't."}), "refusal"),
        (said({"refusal": "I can't."}), "refusal"),
        (said({"content": None}), "refusal"),
        (said({"content": None}, "content_filter", used=0), "content_filter"),
        (
            {
                "choices": [
                    {"message": {"content": None}, "finish_reason": "stop", "logprobs": NO_WORD}
                ],
                "usage": USAGE,
            },
            "refusal",
        ),
    ],
)
@pytest.mark.parametrize("workers", [1, 4])
def test_one_refusal_is_an_answer_reported_by_its_number_and_the_other_nine_are_kept(
    body, finish, workers, tmp_path
):
    with misbehaving(lambda request: (200, body if number(request) == 6 else YES, {})) as (
        url,
        seen,
    ):
        asked = teacher(url, cache=tmp_path, workers=workers)
        with pytest.warns(
            UserWarning, match="of 10 prompts.* refused or got an empty answer: 6$"
        ) as told:
            answers = asked.chat(talks(10), 5, top_logprobs=2)
        again = teacher(url, cache=tmp_path, max_calls=0)
        with pytest.warns(UserWarning, match="empty answer: 6$"):  # kept, not paid for again
            assert again.chat(talks(10), 5, top_logprobs=2) == answers
    assert len(told) == 1 and told[0].filename == __file__ and len(seen) == asked.calls == 10
    assert [i for i, answer in enumerate(answers) if answer.refused] == [6]
    assert answers[6] == Answer("", [], [], [], finish)
    assert all(
        a.text == "yes" and a.top == [{"yes": -0.5, "no": -1.5}] for a in answers[:6] + answers[7:]
    )
    with pytest.raises(ValueError, match=f"must hold log-probabilities.* the finish '{finish}'"):
        to_top_k(answers[6], None)


@pytest.mark.parametrize(
    "body, finish",
    [
        (said({"content": ""}, used=0), "stop"),
        (said({"content": ""}, used=1), "stop"),
        (said({"content": ""}, "length", used=128), "length"),  # all of it went into thoughts
        (said({"content": None}, "length", used=128), "length"),
        (said({"content": None, "tool_calls": [{}]}, "tool_calls", used=9), "tool_calls"),
    ],
)
def test_an_empty_answer_by_chat_is_kept_and_told(body, finish, tmp_path):
    with misbehaving((200, YES, {}), (200, body, {})) as (url, seen):
        asked = teacher(url, cache=tmp_path)
        for _ in range(2):
            with pytest.warns(UserWarning, match="of 2 prompts.* empty answer: 1$"):
                answers = asked.chat(talks(2), 5, top_logprobs=2)
    assert (
        answers[1] == Answer("", [], [], [], finish) and not answers[1].refused and len(seen) == 2
    )


EMPTY_SCORES = {"tokens": [], "token_logprobs": [], "top_logprobs": []}


@pytest.mark.parametrize(
    "change, refused",
    [
        ({"text": "", "logprobs": None, "finish_reason": "stop"}, False),
        ({"text": "", "logprobs": EMPTY_SCORES, "finish_reason": "stop"}, False),
        ({"text": "", "logprobs": None, "finish_reason": "length"}, False),
        ({"text": None, "logprobs": None, "finish_reason": "content_filter"}, True),
        ({"text": "", "logprobs": SCORES, "finish_reason": "content_filter"}, True),
    ],
)
def test_an_empty_answer_by_completions_is_kept_and_told(change, refused, tmp_path):
    with misbehaving((200, choice(**change), {}), (200, GOOD, {})) as (url, seen):
        asked = teacher(url, cache=tmp_path)
        for _ in range(2):
            with pytest.warns(UserWarning, match="of 2 prompts.* empty answer: 0$"):
                answers = asked.complete(["x", "y"], 5, top_logprobs=2)
    assert answers[0] == Answer("", [], [], [], change["finish_reason"])
    assert answers[0].refused is refused and answers[1].text == "ab" and len(seen) == 2


def test_an_answer_that_is_only_its_end_keeps_the_log_probabilities_of_the_end():
    end = {
        "tokens": ["<end>"],
        "token_logprobs": [-0.5],
        "top_logprobs": [{"<end>": -0.5, "a": -1.0}],
    }
    body = choice(text="", logprobs=end, finish_reason="stop") | {
        "usage": USAGE | {"completion_tokens": 1}
    }
    with (
        misbehaving((200, body, {})) as (url, _),
        pytest.warns(UserWarning, match="empty answer: 0"),
    ):
        answer = teacher(url).complete(["x"], 5, top_logprobs=2)[0]
    assert answer.top == [{"<end>": -0.5, "a": -1.0}] and not answer.refused


FAULTS = [
    (500, {}, "answered 500 after 1 tries", ConnectionError),
    (400, {"error": {"message": "too long"}}, "answered 400.*too long", ConnectionError),
    (200, b"{broken", "a broken answer", RuntimeError),
    (200, choice(logprobs=None), "the server silently leaves", RuntimeError),
]


@pytest.mark.parametrize("status, body, words, kind", FAULTS)
@pytest.mark.parametrize("keep", [True, False])
def test_one_failed_call_cancels_no_other_and_its_error_holds_their_answers(
    status, body, words, kind, keep, tmp_path
):
    ill = {"3", "7"}

    def reply(request):
        return (status, body, {}) if request["prompt"] in ill else (200, GOOD, {})

    prompts = [*map(str, range(10)), "3"]  # the last is the fourth once more
    with misbehaving(reply) as (url, seen):
        asked = teacher(url, retries=0, cache=tmp_path / "kept" if keep else None)
        with pytest.raises(kind, match=words) as caught:
            asked.complete(prompts, 2, top_logprobs=2)
        assert "Of 11 prompts, counted from 0, these failed: 3, 7, 10; not asked: none." in str(
            caught.value
        )
        assert ("kept" in str(caught.value)) is keep and KEY not in str(caught.value)
        answers = caught.value.answers
        assert [i for i, answer in enumerate(answers) if answer is None] == [3, 7, 10]
        assert (
            all(answer.text == "ab" for answer in answers if answer)
            and len(seen) == asked.calls == 10
        )
        ill.clear()
        found = asked.complete(prompts, 2, top_logprobs=2)
    assert [answer.text for answer in found] == ["ab"] * 11
    assert len(seen) == (12 if keep else 20)


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_key_a_right_or_a_model_that_is_missing_ends_the_asking(status):
    with misbehaving((200, GOOD, {}), (status, {}, {}), (200, GOOD, {})) as (url, seen):
        with pytest.raises(ConnectionError, match=f"answered {status}") as caught:
            teacher(url).complete([str(i) for i in range(30)], 2, top_logprobs=2)
    assert (
        len(seen) == 2
        and caught.value.answers[0].text == "ab"
        and caught.value.answers[1:] == [None] * 29
    )
    assert "these failed: 1; not asked: 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, … (28 in all)" in str(
        caught.value
    )


def test_a_limit_is_named_before_an_earlier_failure_and_kept_answers_need_no_asking(tmp_path):
    with misbehaving(lambda r: (500 if r["prompt"] == "0" else 200, GOOD, {})) as (url, seen):
        teacher(url, cache=tmp_path).complete(["5"], 2, top_logprobs=2)
        asked = teacher(url, cache=tmp_path, retries=0, max_calls=2)
        with pytest.raises(
            RuntimeError, match="^APITeacher.* max_calls 2 leaves no room"
        ) as caught:
            asked.complete([str(i) for i in range(6)], 2, top_logprobs=2)
    assert "answered 500" in str(caught.value) and "failed: 0, 2; not asked: 3, 4." in str(
        caught.value
    )
    assert [bool(answer) for answer in caught.value.answers] == [
        False,
        True,
        False,
        False,
        False,
        True,
    ]


def test_a_server_that_fails_ten_times_in_a_row_is_asked_no_more():
    fine = {"4", "12"}
    with misbehaving(lambda r: (200 if r["prompt"] in fine else 500, GOOD, {})) as (url, seen):
        with pytest.raises(ConnectionError, match="not asked: 23, ") as caught:
            teacher(url, retries=0).complete([str(i) for i in range(40)], 2, top_logprobs=2)
    assert len(seen) == 23 and [i for i, a in enumerate(caught.value.answers) if a] == [4, 12]


def test_a_full_disk_ends_the_asking_and_loses_no_answer_that_came(tmp_path, monkeypatch):
    with misbehaving((200, GOOD, {})) as (url, seen):
        asked, real = teacher(url, cache=tmp_path), tempfile.TemporaryDirectory
        calls = []

        def full(**options):
            calls.append(options)
            if len(calls) == 3:
                raise OSError(28, "No space left on device")
            return real(**options)

        monkeypatch.setattr(tempfile, "TemporaryDirectory", full)
        with pytest.raises(OSError, match="No space left") as caught:
            asked.complete(list("abcde"), 2, top_logprobs=2)
    assert len(seen) == 3 and [bool(a) for a in caught.value.answers] == [
        True,
        True,
        False,
        False,
        False,
    ]


KINDS = {  # → what the server says, the answer's finish, millionths of dollars at prices (1, 100)
    "good": ((200, YES, {}), "stop", 110),
    "refused": ((200, said({"content": None}), {}), "refusal", 110),
    "filtered": (
        (200, said({"content": None}, "content_filter", used=0), {}),
        "content_filter",
        10,
    ),
    "empty": ((200, said({"content": ""}, "length", used=4), {}), "length", 410),
    "busy": ((429, {}, {"retry-after-ms": "1"}), None, 0),
    "long": ((400, {}, {}), None, 0),
    "silent": ((200, said({"content": "yes"}, used=2), {}), None, 210),
}


@settings(max_examples=25)
@given(
    st.lists(st.sampled_from([*KINDS]), min_size=1, max_size=9),
    st.integers(1, 4),
    st.booleans(),
    st.randoms(),
)
def test_whatever_some_prompts_come_to_the_others_are_asked_once_and_kept(
    kinds, workers, keep, random
):
    order, first = list(range(len(kinds))), set()
    random.shuffle(order)

    def reply(request):  # a failure passes: the second time all is well
        i = number(request)
        kind = kinds[i] if i not in first or KINDS[kinds[i]][1] else "good"
        first.add(i)
        return KINDS[kind][0]

    prompts = [talks(len(kinds))[i] for i in order]
    fine = [i for i in order if KINDS[kinds[i]][1]]
    with (
        misbehaving(reply) as (url, seen),
        tempfile.TemporaryDirectory() as folder,
        warnings.catch_warnings(record=True) as told,
    ):
        warnings.simplefilter("always")
        asked = teacher(
            url, workers=workers, retries=0, price=(1, 100), cache=folder if keep else None
        )
        try:
            answers = asked.chat(prompts, 5, top_logprobs=2)
        except (ConnectionError, RuntimeError) as error:
            answers = error.answers
        assert (None in answers) == (len(fine) < len(kinds))
        assert [a and a.finish for a in answers] == [KINDS[kinds[i]][1] for i in order]
        assert sorted(map(number, seen)) == sorted(order) and asked.calls == len(order)
        assert asked.cost == pytest.approx(sum(KINDS[kind][2] for kind in kinds) / 1e6)
        mute = [
            str(place)
            for place, i in enumerate(order)
            if kinds[i] in ("refused", "filtered", "empty")
        ]
        assert [str(w.message).rpartition(": ")[2] for w in told] == (
            [", ".join(mute)] if mute else []
        )
        if keep:
            whole = asked.chat(prompts, 5, top_logprobs=2)
            again = [i for i in order if i not in fine]
            assert sorted(map(number, seen)) == sorted(order + again)
            assert [a.finish for a in whole] == [KINDS[kinds[i]][1] or "stop" for i in order]
            assert [a for a, i in zip(whole, order, strict=True) if i in fine] == [
                a for a in answers if a
            ]


HALF, OTHER_HALF = {"bytes": [240, 159]}, {"bytes": [240, 159, 152]}
SAME = {"bytes": [239, 191, 189]}  # what the sign itself is in UTF-8: some servers say no more


@pytest.mark.parametrize(
    "first, second, keys",
    [
        (HALF, OTHER_HALF, [r"bytes:\xf0\x9f", r"bytes:\xf0\x9f\x98"]),
        ({"id": 7}, {"id": 9}, ["token_id:7", "token_id:9"]),
        (SAME | {"id": 7}, SAME | {"id": 9}, ["token_id:7", "token_id:9"]),
        ({}, {}, ["alike:0:\ufffd", "alike:1:\ufffd"]),
        (SAME, SAME, ["alike:0:\ufffd", "alike:1:\ufffd"]),
        ({"bytes": None}, {"bytes": None}, ["alike:0:\ufffd", "alike:1:\ufffd"]),
        (HALF, {}, [r"bytes:\xf0\x9f", "\ufffd"]),
        (HALF, SAME, [r"bytes:\xf0\x9f", "\ufffd"]),
    ],
)
@pytest.mark.parametrize("came", [0, 1])
def test_two_top_tokens_that_print_alike_are_both_kept(first, second, keys, came, tmp_path):
    top = [("\ufffd", -0.5, first), ("\ufffd", -1.5, second), ("a", -2.5, {"bytes": [97], "id": 3})]
    own = {"token": "\ufffd"} | (first, second)[came]
    body = said({"content": "\ufffd"}, "length", [entry(own, *top, logprob=top[came][1])])
    with misbehaving((200, body, {})) as (url, seen):
        for _ in range(2):  # asked, and kept
            (answer,) = teacher(url, cache=tmp_path).chat(talks(1), 1, top_logprobs=3)
    assert (
        answer.top == [dict(zip([*keys, "a"], [-0.5, -1.5, -2.5], strict=True))] and len(seen) == 1
    )
    assert answer.tokens == [keys[came]] and answer.log_probs == [top[came][1]]


def test_no_top_token_is_lost_whatever_the_server_says_of_them():
    body = {}
    tokens = st.tuples(
        st.sampled_from(["\ufffd", "", "a", "\ufffd\ufffd"]),
        st.none() | st.lists(st.integers(0, 255), max_size=3),
        st.none() | st.integers(0, 3),
    )

    with misbehaving(lambda _: (200, body, {})) as (url, _):
        asked = teacher(url)

        @given(st.lists(tokens, min_size=1, max_size=20))
        def all_are_kept(row):
            top = [
                (text, -1.0 - i, {"bytes": data, "id": one})
                for i, (text, data, one) in enumerate(row)
            ]
            text, data, one = row[-1]
            last = entry({"token": text, "bytes": data, "id": one}, *top, logprob=top[-1][1])
            body.update(said({"content": "?"}, "length", [last]))
            answer = asked.chat(talks(1), 1, top_logprobs=len(row))[0]
            assert list(answer.top[0].values()) == [x for _, x, _ in top]
            assert answer.tokens == [[*answer.top[0]][-1]]

        all_are_kept()


@pytest.mark.parametrize(
    "text", ["\N{GRINNING FACE}", "ð", "é ", "\N{PILE OF POO}\n", "\0\x7f\xad\xa0"]
)
def test_bytes_lead_to_the_ids_of_a_vocabulary_of_bytes(text, served):
    ids, data, names = served[2](text)["input_ids"], text.encode(), []
    for piece in served[2].convert_ids_to_tokens(ids):  # each of its letters is a byte
        names.append("bytes:" + "".join(rf"\x{byte:02x}" for byte in data[: len(piece)]))
        data = data[len(piece) :]
    assert not data and to_ids(names, served[2]).tolist() == ids


def words(vocabulary, decoder=None):
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary))
    if decoder:
        tokenizer.decoder = decoder
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


def test_bytes_are_never_taken_for_letters_nor_a_token_for_one_that_prints_alike():
    icelandic = words({"ð": 0, "a": 1, "<0xF0>": 2})
    fallback = words({"ð": 0, "a": 1, "<0xF0>": 2}, decoder=tokenizers.decoders.ByteFallback())
    assert to_ids([r"bytes:\xf0", "ð"], fallback).tolist() == [2, 0]
    for token in (r"bytes:\xf0", r"bytes:\x61\xf0", "bytes:", "bytes:\\", "\ufffd"):
        with pytest.raises(ValueError, match="is no piece of this tokenizer's vocabulary"):
            to_ids([token], icelandic)
    for text in ("a", "\ufffd", "a:b"):
        with pytest.raises(
            ValueError, match=f"several tokens of the teacher print as '{text}'.*ask it for ids"
        ):
            to_ids(["ð", f"alike:1:{text}"], icelandic)


def test_a_row_that_a_server_folded_itself_is_an_error_that_says_so():
    folded = SCORES | {"top_logprobs": [{"\ufffd": -0.5}, {"b": -1.0, "a": -1.2}]}
    with misbehaving((200, choice(logprobs=folded), {})) as (url, _):
        with pytest.raises(
            RuntimeError, match="top 2 of 1 .if it folds tokens that print alike into one"
        ):
            teacher(url).complete(["x"], 2, top_logprobs=2)


# names and contents as an earlier version wrote them: what was paid for stays found
@pytest.mark.parametrize(
    "ask, key, file",
    [
        (
            lambda t: t.complete(["The sky is"], 7),
            (
                '["http://127.0.0.1:8000/v1", {"logprobs": 5, "max_tokens": 7, "model": "some'
                ' model", "prompt": "The sky is", "seed": 0, "temperature": 0.0}]'
            ),
            "87f65b5a0f03ff1c1e42023206c9aabb31ff233531537ca80bbe0c65216ce0db",
        ),
        (
            lambda t: t.complete(["é \U0001f600"], 7, temperature=1, top_logprobs=0, seed=3),
            (
                '["http://127.0.0.1:8000/v1", {"max_tokens": 7, "model": "some model", '
                '"prompt": "\\u00e9 \\ud83d\\ude00", "seed": 3, "temperature": 1.0}]'
            ),
            "5217323c6c8859198a40cabe51fb3fb019a5541c49b062c53eee61079355011f",
        ),
        (
            lambda t: t.chat([[{"role": "user", "content": "x"}]], 16),
            (
                '["http://127.0.0.1:8000/v1", {"logprobs": true, "max_tokens": 16, "messages": '
                '[{"content": "x", "role": "user"}], "model": "some model", "seed": 0, '
                '"temperature": 0.0, "top_logprobs": 5}]'
            ),
            "73b45e65f97edfa00d6387327dff6eb950539e66032eb0f36a537a27691c3931",
        ),
    ],
)
def test_an_answer_kept_by_an_earlier_version_is_still_found(ask, key, file, tmp_path):
    answer = {
        "text": "kept",
        "tokens": ["a"],
        "log_probs": [-0.5],
        "top": [{"a": -0.5}],
        "finish": "stop",
    }
    digest = hashlib.sha256(json.dumps([key, answer]).encode()).hexdigest()
    (tmp_path / f"{file}.json").write_text(
        json.dumps({"key": key, "answer": answer, "digest": digest})
    )
    asked = teacher("http://127.0.0.1:8000/v1", cache=tmp_path, max_calls=0)
    assert ask(asked) == [Answer(**answer)]


def test_other_arguments_are_sent_as_they_are_and_what_is_none_is_not_sent(tmp_path):
    plain = {
        "model": "some model",
        "prompt": "x",
        "max_tokens": 7,
        "temperature": 0,
        "seed": 0,
        "logprobs": 2,
    }
    cases = [
        ({}, {}),
        ({"stop": ["\n", "."]}, {"stop": ["\n", "."]}),
        ({"top_p": 0.5}, {"top_p": 0.5}),
        ({"logit_bias": {"7": -100}}, {"logit_bias": {"7": -100}}),
        ({"min_p": 0.1}, {"min_p": 0.1}),
        (
            {"extra_body": {"top_k": 5, "guided": {"regex": "a|b"}}},
            {"top_k": 5, "guided": {"regex": "a|b"}},
        ),
        ({"seed": None}, {"seed": None}),
        ({"temperature": None}, {"temperature": None}),
        (
            {"max_tokens": None, "max_completion_tokens": 9},
            {"max_tokens": None, "max_completion_tokens": 9},
        ),
        (
            {"max_tokens": None, "extra_body": {"max_completion_tokens": 8}},
            {"max_tokens": None, "max_completion_tokens": 8},
        ),
        ({"stop": None, "top_p": None, "extra_body": None}, {}),
    ]
    with misbehaving((200, GOOD, {})) as (url, seen):
        asked = teacher(url, cache=tmp_path)
        for given, _ in cases * 2:  # the second time all are kept, each for itself
            asked.complete(["x"], **{"max_tokens": 7, "top_logprobs": 2} | given)
        asked.complete(
            ["x"], 7, top_logprobs=2, top_k=5, guided={"regex": "a|b"}
        )  # as by extra_body
    sent = [
        {name: value for name, value in (plain | change).items() if value is not None}
        for _, change in cases[:-1]
    ]
    assert seen == sent and len(list(tmp_path.iterdir())) == len(sent)


def test_a_model_that_refuses_max_tokens_temperature_and_seed_is_asked_without_them():
    with misbehaving((200, YES, {})) as (url, seen):
        teacher(url).chat(
            talks(1), max_completion_tokens=50, temperature=None, seed=None, top_logprobs=2
        )
    assert seen == [
        {
            "model": "some model",
            "messages": talks(1)[0],
            "max_completion_tokens": 50,
            "logprobs": True,
            "top_logprobs": 2,
        }
    ]


@pytest.mark.parametrize(
    "options",
    [
        {"max_tokens": 50},
        {"max_completion_tokens": 50},
        {"extra_body": {"max_tokens": 50}},
        {"max_tokens": 5, "extra_body": {"max_completion_tokens": 50}},
        {"max_tokens": 50, "max_completion_tokens": 5},
        {"max_tokens": 5, "extra_body": {"max_tokens": 50}},
    ],
)
def test_the_bound_of_the_cost_counts_the_longest_answer_by_whatever_name(options):
    with misbehaving((200, GOOD, {})) as (url, seen):
        for limit, enough in (
            (4999e-6, False),
            (5400e-6, True),
        ):  # 50 tokens at 100, and the request's bytes at 1
            asked = teacher(url, max_cost=limit, price=(1.0, 100.0))
            if enough:
                asked.complete(["x"], top_logprobs=2, **options)
            else:
                with pytest.raises(RuntimeError, match="leaves no room"):
                    asked.complete(["x"], top_logprobs=2, **options)
        assert len(seen) == 1
        asked = teacher(
            url, max_cost=1000e-6, price=(1.0, 1.0)
        )  # a long setting is paid for as a long prompt is
        with pytest.raises(RuntimeError, match="leaves no room"):
            asked.complete(["x"], 5, top_logprobs=2, tools=["é" * 500])


@pytest.mark.parametrize(
    "options, words",
    [
        ({name: value}, rf"\['{name}'\] can't be given")
        for name, value in [
            ("n", 2),
            ("stream", True),
            ("echo", True),
            ("best_of", 3),
            ("model", "m"),
            ("prompt", "p"),
            ("logprobs", 3),
            ("extra_headers", {"Authorization": KEY}),
            ("extra_query", {"a": 1}),
            ("timeout", 3),
        ]
    ]
    + [
        ({"extra_body": {"n": 4}}, "can't be given"),
        ({"stop": {"a", "b"}}, "prompt 0 asks must be JSON"),
        ({"top_p": math.nan}, "prompt 0 asks must be JSON"),
        ({"temperature": math.inf}, "temperature must be a finite number"),
        ({"prompts": ["fine", "half \ud83d"]}, "prompt 1 asks must be JSON"),
        ({"max_tokens": None}, "max_tokens must be a whole number"),
        (
            {"max_tokens": None, "max_completion_tokens": 0},
            "max_completion_tokens must be a whole number",
        ),
        ({"max_completion_tokens": 1.5}, "max_completion_tokens must be a whole number"),
    ],
)
def test_arguments_that_can_not_be_asked_for_are_refused_before_anything_is_sent(
    options, words, tmp_path
):
    with misbehaving((200, GOOD, {})) as (url, seen):
        asked = teacher(url, cache=tmp_path)
        with pytest.raises(ValueError, match=f"^APITeacher: .*{words}"):
            asked.complete(**{"prompts": ["x"], "max_tokens": 2, "top_logprobs": 2} | options)
    assert not seen and asked.calls == 0 and not list(tmp_path.iterdir())


def test_the_tokens_of_a_stop_string_may_be_counted_and_not_listed():
    usage = USAGE | {"completion_tokens": 5}
    with misbehaving((200, choice(finish_reason="stop") | {"usage": usage}, {})) as (url, _):
        for stop in ("###", ["\n", "###"]):
            assert teacher(url).complete(["x"], 9, top_logprobs=2, stop=stop)[0].tokens == [
                "a",
                "b",
            ]
        for stop in (None, "##", []):
            with pytest.raises(RuntimeError, match="of 5 tokens it gave 2"):
                teacher(url).complete(["x"], 9, top_logprobs=2, stop=stop)


def test_prompts_may_come_one_by_one():
    with misbehaving((200, GOOD, {})) as (url, _):
        assert len(teacher(url).complete((word for word in "abc"), 2, top_logprobs=2)) == 3
    with misbehaving((200, YES, {})) as (url, _):
        assert len(teacher(url).chat(iter(talks(3)), 2, top_logprobs=2)) == 3


@pytest.mark.parametrize(
    "options, words",
    [
        ({"base_url": "https://[half/v1"}, "base_url must look like"),
        ({"base_url": "https://host:http/v1"}, "base_url must look like"),
        ({"base_url": "https://:secret@host/v1"}, "base_url must look like"),
        ({"base_url": b"https://host/v1"}, "base_url must be a string, got bytes"),
        ({"api_key": b"secret"}, "api_key must be a string, got bytes"),
        ({"model": None}, "model must be a string, got NoneType"),
        ({"model": ""}, "model must not be empty"),
        ({"timeout": 0}, "timeout must be a finite number above 0"),
        ({"workers": True}, "workers must be a whole number"),
        ({"price": (1, -1)}, "price must be a finite number at least 0, got -1"),
        ({"price": "12"}, "price must be .in, out. dollars"),
        ({"price": {1: 2, 3: 4}}, "price must be .in, out. dollars"),
        ({"price": (1, 1), "max_cost": math.nan}, "max_cost must be a finite number"),
        ({"cache": ""}, "cache must not be empty"),  # not the working directory
        ({"cache": b"folder"}, "cache must be a folder's path, got bytes"),
    ],
)
def test_what_no_teacher_can_be_made_of_is_named_and_no_secret_is_said(options, words):
    plain = {"base_url": "https://host/v1", "api_key": KEY, "model": "m"}
    with pytest.raises((TypeError, ValueError), match=f"^APITeacher: {words}") as caught:
        kd.APITeacher(**plain | options)
    assert KEY not in str(caught.value) and "secret" not in str(caught.value)


@pytest.mark.parametrize("given", [None, 3, "a text", {"a": 1}, [1], [b"x"], ["x", None]])
def test_what_is_no_list_of_prompts_or_conversations_is_not_asked(given):
    asked = teacher("http://127.0.0.1:1/v1")
    with pytest.raises(TypeError, match="^APITeacher: prompts must be a list of texts"):
        asked.complete(given, 1)
    with pytest.raises(TypeError, match="^APITeacher: messages must be a list of conversations"):
        asked.chat(given, 1)
    assert asked.calls == 0


@pytest.mark.parametrize("temperature", ["0.5", -1, math.nan, True, [0.5]])
def test_a_temperature_that_is_none_is_not_asked_for(temperature):
    with pytest.raises(ValueError, match="^APITeacher: temperature must be a finite number"):
        teacher("http://127.0.0.1:1/v1").complete(["x"], 1, temperature=temperature)


# --- several answers a question, and those that pass ---


def numbered(request):
    """The seed as the answer, or a counter where none is sent."""
    text = str(request.get("seed", len(numbered.asked)))
    numbered.asked.append(request)
    return 200, choice(text=text), {}


@pytest.fixture(autouse=True)
def nothing_asked():
    numbered.asked = []


def texts(found):
    return [[answer.text for answer in group] for group in found]


def test_several_answers_have_seeds_that_count_up_and_are_kept(tmp_path):
    with misbehaving(numbered) as (url, seen):
        api = teacher(url, cache=tmp_path)
        options = {"max_tokens": 2, "temperature": 1.0, "top_logprobs": 0, "seed": 5}
        found = api.complete(["a", "b"], answers=3, **options)
        assert texts(found) == [["5", "6", "7"]] * 2 and api.calls == len(seen) == 6
        assert texts(api.complete(["b"], answers=3, **options)) == [["5", "6", "7"]]
        assert [one.text for one in api.complete(["a"], **options)] == ["5"]
        more = api.complete(["a"], answers=4, **options)
        assert texts(more) == [["5", "6", "7", "8"]] and len(seen) == 7  # the first three are kept


def test_without_a_seed_several_answers_are_asked_for_and_kept_apart(tmp_path):
    with misbehaving(numbered) as (url, seen):
        api = teacher(url, cache=tmp_path)
        options = {"max_tokens": 2, "temperature": 1.0, "top_logprobs": 0, "seed": None}
        found = texts(api.complete(["a"], answers=3, **options))
        assert found == [["0", "1", "2"]]
        assert texts(api.complete(["a"], answers=3, **options)) == found and len(seen) == 3
        assert [one.text for one in api.complete(["a"], **options)] == ["0"] and len(seen) == 3


def test_keep_is_asked_of_each_question_with_each_of_its_answers():
    with misbehaving(numbered) as (url, _):
        options = {"max_tokens": 2, "temperature": 1.0, "top_logprobs": 0, "seed": 0}
        api = teacher(url)
        asked = []

        def even(prompt, answer):
            asked.append((prompt, answer.text))
            return int(answer.text) % 2 == 0

        assert texts(api.complete(["a", "b"], answers=3, keep=even, **options)) == [["0", "2"]] * 2
        assert asked == [(p, n) for p in "ab" for n in "012"]
        one = api.complete(["a"], keep=lambda prompt, answer: False, **options)
        assert one == [[]]
        talk = [{"role": "user", "content": "a"}]
        with misbehaving((200, said({"content": "7"}), {})) as (other, _):
            chat = teacher(other).chat(
                [talk], max_tokens=2, top_logprobs=0, keep=lambda question, answer: question == talk
            )
        assert texts(chat) == [["7"]]


def test_where_keep_fails_no_answer_is_lost():
    def broken(prompt, answer):
        raise KeyError(prompt)

    with misbehaving(numbered) as (url, _), pytest.raises(KeyError) as raised:
        teacher(url).complete(
            ["a"], max_tokens=2, temperature=1.0, top_logprobs=0, answers=2, keep=broken
        )
    assert texts(raised.value.answers) == [["0", "1"]]


def test_a_failure_among_several_answers_names_the_prompt_and_keeps_the_others():
    def reply(request):
        if request["prompt"] == "b" and request["seed"] == 1:
            return 400, {"error": {"message": "no"}}, {}
        return numbered(request)

    with misbehaving(reply) as (url, _), pytest.raises(ConnectionError) as raised:
        teacher(url).complete(
            ["a", "b", "c"], max_tokens=2, temperature=1.0, top_logprobs=0, answers=2
        )
    assert "Of 3 prompts, counted from 0, these failed: 1" in str(raised.value)
    first, second, third = raised.value.answers
    assert texts([first, third]) == [["0", "1"]] * 2
    assert second[0].text == "0" and second[1] is None


def test_what_several_answers_cannot_be_is_told_before_anything_is_asked():
    with misbehaving((200, GOOD, {})) as (url, seen):
        api = teacher(url)
        with pytest.raises(ValueError, match="answers must be 1 at temperature 0"):
            api.complete(["a"], max_tokens=2, answers=2)
        with pytest.raises(ValueError, match="answers must be a whole number"):
            api.complete(["a"], max_tokens=2, answers=0)
        with pytest.raises(ValueError, match="seed must be a whole number"):
            api.complete(["a"], max_tokens=2, temperature=1.0, answers=2, seed="one")
        with pytest.raises(TypeError, match="keep must be a function"):
            api.complete(["a"], max_tokens=2, keep="right")
        assert seen == []


# --- texts that are there ---


def test_a_text_is_scored_as_the_model_itself_reads_it(served, tmp_path):
    server, model, tokenizer = served
    texts = ["The function returns the number", "A list of"]
    asked = kd.APITeacher(server.url, server.token, "teacher", cache=tmp_path, price=(1.0, 2.0))
    found = asked.score(texts, top_logprobs=3)
    for text, answer in zip(texts, found, strict=True):
        ids = tokenizer(text, return_tensors="pt")["input_ids"]
        assert torch.equal(to_ids(answer.tokens, tokenizer), ids[0, 1:])
        with torch.no_grad():
            rows = model(ids).logits[0, :-1].log_softmax(-1)
        came = rows.gather(-1, ids[0, 1:, None])[:, 0]
        torch.testing.assert_close(torch.tensor(answer.log_probs), came, atol=1e-4, rtol=1e-4)
        which, few, tail = to_top_k(answer, tokenizer)
        torch.testing.assert_close(few, rows.gather(-1, which), atol=1e-4, rtol=1e-4)
        assert which.shape == (ids.shape[1] - 1, 3) and (tail < 0).all()
    cost, calls = asked.cost, asked.calls
    assert calls == 2 and cost > 0 and asked.score(texts, top_logprobs=3) == found
    assert (asked.calls, asked.cost) == (calls, cost)  # from the cache
    assert not asked.score(["a"], top_logprobs=1)[0].tokens  # nothing stands before the only token


@pytest.mark.parametrize(
    "scores, read",
    [
        (SCORES, 10),  # echo ignored
        (SCORES | {"tokens": ["a"]}, 2),
        (SCORES | {"token_logprobs": [None, None]}, 2),
        (None, 2),
        ({"content": []}, 2),
    ],
)
def test_a_server_that_scores_no_texts_is_told(scores, read):
    body = choice(logprobs=scores) | {"usage": {"prompt_tokens": read, "completion_tokens": 0}}
    with misbehaving((200, body, {})) as (url, seen):
        with pytest.raises(RuntimeError, match="the server does not score texts.* tokens"):
            teacher(url).score(["ab"], top_logprobs=2)
    assert seen[0]["echo"] is True and seen[0]["max_tokens"] == 0


@pytest.mark.parametrize("texts", ["ab", [3], [""], None])
def test_what_is_no_text_is_not_asked(texts):
    with pytest.raises(TypeError, match="^APITeacher: texts must be a list of texts"):
        teacher("http://127.0.0.1:1/v1").score(texts)
    with pytest.raises(ValueError, match="top_logprobs must be at least 1"):
        teacher("http://127.0.0.1:1/v1").score(["ab"], top_logprobs=0)
