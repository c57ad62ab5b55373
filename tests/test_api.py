"""The teacher behind an API: against a real model on this machine, and against a server that misbehaves."""

import json
import math
import re
import threading
import traceback
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import chain, repeat
from pathlib import Path

import pytest
import tokenizers
import torch
from transformers import PreTrainedTokenizerFast

from kdlab import language_model
from kdlab.api import Answer, APITeacher, to_ids, to_top_k
from kdlab.server import serve

KEY = "sk-very-secret-1234567890"
SCORES = {"tokens": ["a", "b"], "token_logprobs": [-0.5, -1.0],
          "top_logprobs": [{"c": -1.5, "a": -0.5}, {"b": -1.0, "a": -1.2, "z": -9.0}]}
SOON = {"retry-after-ms": "1"}
USAGE = {"prompt_tokens": 10, "completion_tokens": 2}
GOOD = {"choices": [{"text": "ab", "finish_reason": "length", "logprobs": SCORES}], "usage": USAGE}


@contextmanager
def misbehaving(*replies):
    """A server that gives (status, body, headers) in turn, the last for ever; a number as body: seconds to wait."""
    seen, turn, done = [], chain(replies, repeat(replies[-1])), threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            seen.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            status, body, headers = next(turn)
            if isinstance(body, float):
                done.wait(body)
                body = GOOD
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            for pair in ({"content-type": "application/json", "content-length": str(len(data))} | headers).items():
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
    return APITeacher(url, KEY, "some model", **{"retries": 2, "timeout": 5.0, "workers": 1} | options)


def choice(**changes):
    return GOOD | {"choices": [GOOD["choices"][0] | changes]}


@pytest.fixture(scope="module")
def served():
    model, tokenizer = language_model(str(Path(__file__).parent.parent / "data" / "teachers" / "topics_lm"))
    with serve(model, tokenizer) as server:
        yield server, model, tokenizer


def test_answers_of_a_real_model_become_its_own_distribution(served, tmp_path):
    server, model, tokenizer = served
    prompts, cost = ["The function returns", "A list of", "The function returns"], 0
    asked = APITeacher(server.url, server.token, "teacher", cache=tmp_path, price=(1.0, 2.0))
    answers = asked.complete(prompts, 8, top_logprobs=4)
    for prompt, answer in zip(prompts, answers, strict=True):
        ids, new = tokenizer(prompt)["input_ids"], to_ids(answer.tokens, tokenizer).tolist()
        generated = model.generate(torch.tensor([ids]), max_new_tokens=8, do_sample=False, pad_token_id=0)[0].tolist()
        assert ids + new == generated and answer.text == tokenizer.decode(new) and answer.finish == "length"
        with torch.no_grad():
            rows = model(torch.tensor([ids + new])).logits[0, len(ids) - 1:-1].double().log_softmax(-1)
        values, expected = rows.topk(4)
        rest = rows.exp().scatter(1, expected, 0).sum(1).log()
        for found, wanted in zip(to_top_k(answer, tokenizer), (expected, values.float(), rest.float()), strict=True):
            torch.testing.assert_close(found, wanted, rtol=0, atol=1e-3)
        assert answer.log_probs == pytest.approx(rows.gather(1, torch.tensor(new)[:, None])[:, 0].tolist(), abs=1e-4)
        cost += (len(ids) + 2 * 8) / 1e6
    assert asked.calls == 2 and asked.cost == pytest.approx(cost - (len(ids) + 2 * 8) / 1e6)  # the third is the first
    again = APITeacher(server.url, "a wrong key", "teacher", cache=tmp_path, max_calls=0)
    assert again.complete(prompts, 8, top_logprobs=4) == answers and again.calls == 0 and again.cost == 0


def test_chat_and_many_at_once(served):
    server = served[0]
    asked = APITeacher(server.url, server.token, "teacher")
    talks = [[{"role": "user", "content": word}] for word in ("lists", "files", "sets", "errors", "names")]
    plain = asked.complete([f"user: {talk[0]['content']}\nassistant:" for talk in talks], 4, top_logprobs=2)
    for answer, same in zip(asked.chat(talks, 4, top_logprobs=2), plain, strict=True):
        assert (answer.text, answer.tokens, answer.finish) == (same.text, same.tokens, same.finish)
        assert [list(row) for row in answer.top] == [list(row) for row in same.top]
    drawn = asked.complete(["The"], 8, 1.0, top_logprobs=0, seed=1)
    assert drawn[0].top == drawn[0].tokens == [] and drawn != asked.complete(["The"], 8, 1.0, top_logprobs=0, seed=2)


def test_the_request_and_the_top_k_likeliest_first():
    with misbehaving((200, GOOD, {})) as (url, seen):
        answer = teacher(url).complete(["x"], 7, temperature=0.5, top_logprobs=2, seed=3)[0]
        teacher(url).complete([""], 7, top_logprobs=0)
    assert seen[0] == {"model": "some model", "prompt": "x", "max_tokens": 7, "temperature": 0.5, "seed": 3,
                       "logprobs": 2}
    assert "logprobs" not in seen[1] and seen[1]["temperature"] == 0
    assert [list(row) for row in answer.top] == [["a", "c"], ["b", "a"]] and answer.log_probs == [-0.5, -1.0]


@pytest.mark.parametrize("failure", [(429, {}, {"retry-after": "7"}), (500, {}, {"retry-after": "7"}),
                                     (503, b"<html>", {}), (200, b"cut", {"content-length": "10"})])
def test_what_passes_is_tried_again_after_the_time_asked_for(failure, monkeypatch):
    waited = []
    monkeypatch.setattr("time.sleep", waited.append)
    with misbehaving(failure, (200, GOOD, {})) as (url, seen):
        asked = teacher(url, max_calls=1)
        assert asked.complete(["x"], 2, top_logprobs=2)[0].text == "ab" and asked.calls == 1 and len(seen) == 2
    assert (7 in waited) == ("retry-after" in failure[2]) and max(waited) > 0.3  # else openai's own back-off


@pytest.mark.parametrize("failure, words, tries", [
    ((429, {"error": {"message": "slow down"}}, SOON), "answered 429 after 3 tries.*slow down", 3),
    ((429, {}, {"retry-after": "500"}), "answered 429 after 1 tries, asking to wait 500 s", 1),
    ((500, b"<html>oops", SOON), "answered 500 after 3 tries", 3),
    ((401, {"error": {"message": f"wrong key {KEY}"}}, {}), r"answered 401 after 1 tries.*wrong key \[key\]", 1),
    ((400, {}, {}), "answered 400 after 1 tries", 1)])
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


@pytest.mark.parametrize("body, words", [
    (b"{broken", "broken answer"), (b"", "broken answer"), (b"[]", "broken answer"), ({"choices": []}, "broken answer"),
    ({"usage": USAGE}, "broken answer: KeyError 'choices'"), (GOOD | {"choices": []}, "broken answer"),
    (GOOD | {"choices": None}, "broken answer"), (GOOD | {"usage": None}, "broken answer"),
    (choice(text=None), "broken answer"), (choice(logprobs=SCORES | {"token_logprobs": [0.5, -1]}), "above 0"),
    (choice(logprobs=SCORES | {"token_logprobs": [math.nan, -1]}), "not finite"),
    *[(choice(logprobs=found), "the server silently leaves the log-probabilities out")
      for found in (None, {}, {name: part[:1] for name, part in SCORES.items()},
                    SCORES | {"top_logprobs": [{"a": -0.5}, {"b": -1.0, "a": -1.2}]},
                    SCORES | {"top_logprobs": None}, {"content": None})]])
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
        assert len(list(tmp_path.iterdir())) == 3 and asked.complete(list("cab"), 2, top_logprobs=2) and len(seen) == 3
        # 10 tokens in and 2 out at 1 and 100 dollars a million: 210 a call; the bound: 200 and the request's bytes
        asked = teacher(url, max_cost=1000e-6, price=(1.0, 100.0))
        with pytest.raises(RuntimeError, match=r"4 calls, 0.000840 dollars.*max_cost 0.001 leaves no room"):
            asked.complete(list("abcdefgh"), 2, top_logprobs=2)
        for limit, prompt in (0, "x"), (200e-6, "x"), (1000e-6, "é" * 400):  # a long prompt costs by its bytes
            with pytest.raises(RuntimeError, match="0 calls, 0.000000 dollars"):
                teacher(url, max_cost=limit, price=(1.0, 100.0)).complete([prompt], 2, top_logprobs=2)
        assert len(seen) == 7 and asked.cost == pytest.approx(840e-6)
    with misbehaving((200, 0.5, {})) as (url, seen):  # calls under way count by their bounds, about 310 each
        asked = teacher(url, workers=4, max_cost=700e-6, price=(1.0, 100.0))
        with pytest.raises(RuntimeError, match="no room"):
            asked.complete(list("abcd"), 2, top_logprobs=2)
        assert len(seen) == 2 and asked.cost == pytest.approx(420e-6)


def test_each_setting_has_its_own_answer_and_no_file_holds_the_key(tmp_path):
    with misbehaving((200, GOOD, {})) as (url, seen):
        asked = teacher(url, cache=tmp_path / "new" / "folder")
        base = {"prompts": ["x"], "max_tokens": 2, "temperature": 0, "top_logprobs": 2, "seed": 0}
        for name, value in [("seed", 0), ("prompts", ["y"]), ("max_tokens", 3), ("temperature", 1), ("top_logprobs", 1),
                            ("seed", 1), ("seed", 0)]:
            asked.complete(**base | {name: value})
        asked.chat([[{"role": "user", "content": "x"}]], 2, top_logprobs=0)
        other = APITeacher(url, KEY, "another model", cache=asked.cache)
        assert other.complete(**base) == asked.complete(**base) and len(seen) == 8
    files = list(asked.cache.iterdir())
    assert len(files) == 8 and all(re.fullmatch(r"[0-9a-f]{64}\.json", file.name) for file in files)
    assert not any(KEY in file.read_text() for file in files)


@pytest.mark.parametrize("damage", [lambda t: t[:-9], lambda t: "", lambda t: "{}", lambda t: t.replace("-0.5", "-0.4"),
                                    lambda t: t.replace('\\"x\\"', '\\"y\\"'), lambda t: "[]"])
def test_a_damaged_answer_is_named_and_not_used(damage, tmp_path):
    with misbehaving((200, GOOD, {})) as (url, seen):
        kept = teacher(url, cache=tmp_path).complete(["x"], 2, top_logprobs=2)
        file, = tmp_path.iterdir()
        file.write_text(damage(file.read_text()))
        with pytest.raises(ValueError, match=f"{file.name} is damaged; delete the file"):
            teacher(url, cache=tmp_path).complete(["x"], 2, top_logprobs=2)
        file.unlink()
        assert teacher(url, cache=tmp_path).complete(["x"], 2, top_logprobs=2) == kept and len(seen) == 2


def test_tokens_lead_back_to_their_ids_or_are_refused(served):
    tokenizer = served[2]
    pieces = tokenizer.convert_ids_to_tokens(list(range(512)))
    assert to_ids([*pieces, "token_id:600"], tokenizer).tolist() == [*range(512), 600]
    for token in (" the", "\n", "not a piece"):
        with pytest.raises(ValueError, match="is no piece of this tokenizer's vocabulary"):
            to_ids(["a", token], tokenizer)
    with pytest.raises(ValueError, match="must hold log-probabilities"):
        to_top_k(Answer("a", [], [], [], "stop"), tokenizer)
    tail = to_top_k(Answer("a", ["a"], [0.0], [{"a": math.log1p(-1e-9), "b": -40.0}], "stop"), tokenizer)[2]
    assert tail.item() == pytest.approx(math.log(1e-9), abs=1e-4)


@pytest.mark.parametrize("options, words", [
    ({"base_url": "127.0.0.1"}, "base_url"), ({"base_url": "http://me:secret@host/v1"}, "base_url"),
    ({"api_key": ""}, "api_key"), ({"retries": -1}, "retries"), ({"workers": 0}, "workers"), ({"price": (1,)}, "price"),
    ({"max_calls": 1.5}, "max_calls"), ({"max_cost": 1}, "max_cost"), ({"cache": __file__}, "cache")])
def test_bad_arguments_are_named(options, words):
    with pytest.raises(ValueError, match=f"^APITeacher: {words} must") as caught:
        APITeacher(**{"base_url": "http://127.0.0.1:1/v1", "api_key": KEY, "model": "m"} | options)
    assert KEY not in str(caught.value) and "secret" not in str(caught.value)
    asked = teacher("http://127.0.0.1:1/v1")
    for call, kind in ((lambda: asked.complete(["x"], 0), ValueError), (lambda: asked.complete("x", 1), TypeError),
                       (lambda: asked.complete(["x"], 1, top_logprobs=21), ValueError),
                       (lambda: asked.chat([{"role": "user", "content": "x"}], 1), TypeError)):
        with pytest.raises(kind, match="^APITeacher: .* must be"):
            call()
    assert asked.calls == 0 and asked.complete([], 1) == []


def test_a_proxy_is_no_way_to_this_machine(monkeypatch):
    for variable in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(variable, "http://127.0.0.1:1")
    for variable in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(variable, raising=False)
    with misbehaving((200, GOOD, {})) as (url, seen):
        assert teacher(url, retries=0).complete(["x"], 2, top_logprobs=2)[0].text == "ab" and len(seen) == 1


def test_after_an_error_what_was_not_begun_is_not_asked():
    with misbehaving((400, {"error": "no"}, {})) as (url, seen):
        with pytest.raises(ConnectionError, match="answered 400"):
            teacher(url, retries=0).complete([f"question {i}" for i in range(50)], 2)
        assert len(seen) < 25  # one worker: those under way when the first error came


def test_a_word_that_the_tokenizer_only_knows_as_unknown_is_refused():
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel({"[UNK]": 0, "no": 1}, unk_token="[UNK]"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]")
    assert to_ids(["no"], tokenizer).tolist() == [1]
    with pytest.raises(ValueError, match="'yes' is no piece"):
        to_ids(["yes"], tokenizer)
