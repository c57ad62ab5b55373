"""The server's answers against the model asked directly, and who may ask it."""

import json
import math
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from copy import deepcopy
from functools import partial
from pathlib import Path

import psutil
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from kdlab import language_model
from kdlab.teachers.server import Server, app, serve

FOLDER = Path(__file__).parents[2] / "data" / "teachers" / "topics_lm"
PROMPTS = [
    "The function returns",
    "A list of",
    "If the file does not exist, the module raises an error and the",
]


@pytest.fixture(scope="module")
def loaded():
    return language_model(str(FOLDER))


@pytest.fixture(scope="module")
def server(loaded):
    with serve(*loaded) as running:
        yield running


def ask(server, path="completions", token=None, raw=None, **body):
    """(status, answer) of one request."""
    token = server.token if token is None else token
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    data = (
        None
        if path == "models"
        else json.dumps({"model": "teacher"} | body).encode()
        if raw is None
        else raw
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(
            urllib.request.Request(f"{server.url}/{path}", data, headers), timeout=60
        ) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def greedy(model, ids, n):
    """The n tokens that transformers itself adds."""
    return model.generate(torch.tensor([ids]), max_new_tokens=n, do_sample=False, pad_token_id=0)[
        0, len(ids) :
    ].tolist()


close = partial(pytest.approx, abs=1e-4)


def direct(model, ids):
    """(L, V) log-probabilities of the model over what follows each id, without padding or a
    cache."""
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0].double().log_softmax(-1)


@pytest.mark.parametrize("prompt", PROMPTS)
def test_a_greedy_answer_is_that_of_generate_with_the_models_log_probabilities(
    prompt, server, loaded
):
    model, tokenizer = loaded
    ids = tokenizer(prompt)["input_ids"]
    said = greedy(model, ids, 12)
    status, answer = ask(server, prompt=prompt, max_tokens=12, temperature=0.0, logprobs=4)
    scores = (choice := answer["choices"][0])["logprobs"]
    assert (
        status == 200
        and choice["text"] == tokenizer.decode(said)
        and choice["finish_reason"] == "length"
    )
    assert tokenizer.convert_tokens_to_ids(scores["tokens"]) == said
    rows = direct(model, ids + said)[len(ids) - 1 : -1]
    assert scores["token_logprobs"] == close(
        [row[i].item() for row, i in zip(rows, said, strict=True)]
    )
    for top, row in zip(scores["top_logprobs"], rows, strict=True):
        values, indices = row.topk(4)
        assert top == close(
            dict(
                zip(tokenizer.convert_ids_to_tokens(indices.tolist()), values.tolist(), strict=True)
            )
        )
    assert answer["usage"] == {
        "prompt_tokens": len(ids),
        "completion_tokens": 12,
        "total_tokens": len(ids) + 12,
    }
    assert (
        answer["object"] == "text_completion"
        and answer["model"] == "teacher"
        and choice["index"] == 0
    )


@pytest.mark.parametrize(
    "kind", ["rotary", "learnt"]
)  # rotary positions are relative and forgive wrong ones
@pytest.mark.parametrize("options", [{"temperature": 0.0}, {"temperature": 0.9, "seed": 5, "n": 2}])
def test_a_batch_answers_as_single_prompts_do(options, kind, loaded):
    torch.manual_seed(1)
    gpt2 = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=512,
            n_positions=64,
            n_embd=16,
            n_layer=2,
            n_head=2,
            eos_token_id=511,
            initializer_range=0.5,
        )
    ).eval()
    options = options | {"max_tokens": 10, "logprobs": 3}
    with serve(gpt2 if kind == "learnt" else loaded[0], loaded[1]) as server:
        _, batch = ask(server, prompt=PROMPTS, **options)
        alone = [
            choice
            for prompt in PROMPTS
            for choice in ask(server, prompt=prompt, **options)[1]["choices"]
        ]
    assert [c["index"] for c in batch["choices"]] == list(range(len(alone)))
    for one, other in zip(batch["choices"], alone, strict=True):
        assert (
            one["text"] == other["text"]
            and one["logprobs"]["tokens"] == other["logprobs"]["tokens"]
        )
        assert one["logprobs"]["token_logprobs"] == pytest.approx(
            other["logprobs"]["token_logprobs"], abs=1e-4
        )
    assert batch["usage"]["completion_tokens"] == sum(len(c["logprobs"]["tokens"]) for c in alone)


def test_draws_follow_the_softened_model_and_the_seed(server, loaded):
    model, tokenizer = loaded
    expected = (direct(model, tokenizer("The")["input_ids"])[-1] / 0.7).softmax(-1)
    counts = torch.zeros(512)
    for seed in range(25):
        answer = ask(
            server, prompt=["The"] * 8, max_tokens=1, temperature=0.7, seed=seed, n=8, logprobs=0
        )[1]
        drawn = [c["logprobs"]["tokens"][0] for c in answer["choices"]]
        assert drawn == drawn[:8] * 8  # one seed, one answer
        counts += torch.bincount(
            torch.tensor(tokenizer.convert_tokens_to_ids(drawn[:8])), minlength=512
        )
    likely = int(expected.argmax())
    spread = math.sqrt(200 * expected[likely] * (1 - expected[likely]))
    assert abs(counts[likely] - 200 * expected[likely]) < 4 * spread and (counts > 0).sum() > 10
    seeds = [
        ask(server, prompt="The", max_tokens=8, n=2, **seed)[1]["choices"]
        for seed in ({}, {}, {"seed": 1})
    ]
    assert len({c["text"] for pair in seeds for c in pair}) == 6  # without a seed each is fresh


def test_log_probabilities_do_not_follow_the_temperature(server, loaded):
    model, tokenizer = loaded
    scores = ask(server, prompt="The", max_tokens=1, temperature=2, seed=1, logprobs=0)[1][
        "choices"
    ][0]["logprobs"]
    i = tokenizer.convert_tokens_to_ids(scores["tokens"][0])
    assert scores["token_logprobs"][0] == close(
        direct(model, tokenizer("The")["input_ids"])[-1, i].item()
    )
    assert scores["top_logprobs"] == [
        {scores["tokens"][0]: scores["token_logprobs"][0]}
    ]  # what came is always listed


def test_echo_scores_the_prompt(server, loaded):
    model, tokenizer = loaded
    _, answer = ask(server, prompt=PROMPTS + ["a"], max_tokens=0, echo=True, logprobs=2)
    for prompt, choice in zip(PROMPTS, answer["choices"], strict=False):
        ids, scores = tokenizer(prompt)["input_ids"], choice["logprobs"]
        rows = direct(model, ids)
        assert choice["text"] == prompt and tokenizer.convert_tokens_to_ids(scores["tokens"]) == ids
        assert scores["token_logprobs"][0] is None and scores["top_logprobs"][0] is None
        assert scores["token_logprobs"][1:] == close(
            [rows[i, t].item() for i, t in enumerate(ids[1:])]
        )
    assert (
        answer["choices"][3]["logprobs"]["token_logprobs"] == [None]
        and answer["usage"]["completion_tokens"] == 0
    )
    both = ask(server, prompt=PROMPTS[0], max_tokens=3, echo=True, logprobs=0, temperature=0)[1][
        "choices"
    ][0]
    new = ask(server, prompt=PROMPTS[0], max_tokens=3, logprobs=0, temperature=0)[1]["choices"][0]
    assert both["text"] == PROMPTS[0] + new["text"]
    assert both["logprobs"]["tokens"][-3:] == new["logprobs"]["tokens"]


def test_a_stop_string_and_the_end_token_end_an_answer(server, loaded):
    model, tokenizer = loaded
    whole = ask(server, prompt=PROMPTS[0], max_tokens=20, temperature=0)[1]["choices"][0]["text"]
    cut = ask(
        server, prompt=PROMPTS[0], max_tokens=20, temperature=0, stop=[whole[9:13], "§"], logprobs=0
    )[1]
    choice = cut["choices"][0]
    assert choice["text"] == whole[: whole.find(whole[9:13])] and choice["finish_reason"] == "stop"
    assert len(choice["logprobs"]["tokens"]) == cut["usage"]["completion_tokens"] < 20
    assert ask(server, prompt=PROMPTS[0], max_tokens=20, temperature=0, stop=whole[9:13])[1][
        "choices"
    ][0] == (choice | {"logprobs": None})
    ids = tokenizer(PROMPTS[0])["input_ids"]
    other = deepcopy(model)
    said = greedy(model, ids, 5)
    other.generation_config.eos_token_id = [3, said[4]]
    with serve(other, tokenizer) as second:
        batch = ask(
            second, prompt=[PROMPTS[0], PROMPTS[1]], max_tokens=9, temperature=0, logprobs=0
        )[1]
    ended = batch["choices"][0]
    assert ended["finish_reason"] == "stop"
    assert (
        tokenizer.convert_tokens_to_ids(ended["logprobs"]["tokens"])
        == said[: said.index(said[4]) + 1]
    )


@pytest.mark.parametrize(
    "template", [None, "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}:"]
)
def test_a_chat_is_a_completion_of_its_template(template, server, loaded):
    model, tokenizer = loaded
    tokenizer.chat_template = template
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "What is a list?"},
    ]
    prompt = (
        "<system>Be brief.<user>What is a list?:"
        if template
        else ("system: Be brief.\nuser: What is a list?\nassistant:")
    )
    options = {"max_tokens": 6, "temperature": 0}
    try:
        status, chat = ask(
            server, "chat/completions", messages=messages, logprobs=True, top_logprobs=3, **options
        )
    finally:
        tokenizer.chat_template = None
    plain = ask(server, prompt=prompt, logprobs=3, **options)[1]
    choice, same = chat["choices"][0], plain["choices"][0]
    assert status == 200 and chat["object"] == "chat.completion" and chat["usage"] == plain["usage"]
    assert choice["message"] == {"role": "assistant", "content": same["text"]}
    content = choice["logprobs"]["content"]
    assert [t["token"] for t in content] == same["logprobs"]["tokens"]
    assert [t["logprob"] for t in content] == pytest.approx(
        same["logprobs"]["token_logprobs"], abs=1e-6
    )
    assert [{t["token"]: t["logprob"] for t in row["top_logprobs"]} for row in content] == [
        pytest.approx(row, abs=1e-6) for row in same["logprobs"]["top_logprobs"]
    ]


def test_ids_beyond_the_tokenizer_and_ruled_out_tokens_still_have_a_name_and_a_number(loaded):
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=515,
            hidden_size=16,
            intermediate_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            max_position_embeddings=64,
        )
    ).eval()
    model.lm_head = torch.nn.Linear(16, 515).eval()
    torch.nn.init.zeros_(model.lm_head.weight)
    torch.nn.init.constant_(model.lm_head.bias, -math.inf)
    model.lm_head.bias.data[[513, 7]] = torch.tensor([3.0, 2.0])
    with serve(model, loaded[1], name="tiny") as tiny:
        answer = ask(tiny, model="tiny", prompt="a", max_tokens=1, temperature=0, logprobs=3)[1]
    scores = answer["choices"][0]["logprobs"]
    assert (
        scores["tokens"] == ["token_id:513"]
        and list(scores["top_logprobs"][0].values())[2] == -9999.0
    )


@pytest.mark.parametrize(
    "path, body, words",
    [
        ("completions", {"prompt": "a", "stream": True}, "does not stream"),
        ("completions", {"prompt": "a", "best_of": 3}, "best_of"),
        ("completions", {"prompt": "a", "logprobs": 21}, "logprobs"),
        ("completions", {"prompt": "a", "n": 9}, "n: "),
        ("completions", {"prompt": "a", "temperature": -1}, "temperature"),
        ("completions", {"prompt": 3}, "prompt"),
        ("completions", {"prompt": []}, "prompt"),
        ("completions", {"prompt": ""}, "at most"),
        ("completions", {"prompt": "a", "max_tokens": 0}, "max_tokens"),
        ("completions", {"prompt": "a", "max_tokens": 256}, "at most 255"),
        ("completions", {"raw": b"{"}, "body"),
        ("chat/completions", {"messages": []}, "messages"),
        ("chat/completions", {"messages": [{"role": "user"}]}, "content"),
        (
            "chat/completions",
            {"messages": [{"role": "user", "content": "a"}], "stream": True},
            "does not stream",
        ),
    ],
)
def test_bad_requests_get_an_error_in_openais_format(path, body, words, server):
    status, answer = ask(server, path, **body)
    assert (
        status == 400
        and words in answer["error"]["message"]
        and answer["error"]["type"] == "invalid_request_error"
    )


def test_only_the_bearer_of_the_token_gets_an_answer(server):
    for path in ("models", "completions", "chat/completions", "docs", "openapi.json"):
        for token in ("", "wrong", server.token + "x", "é"):
            status, answer = ask(server, path, token=token, prompt="a")
            assert status == 401 and "token" in answer["error"]["message"]
    assert ask(server, "models")[1]["data"][0]["id"] == "teacher"
    assert ask(server, "nothing")[0] == 404 and ask(server, prompt="a", model="another")[0] == 404
    assert server.token not in repr(server) and len(server.token) >= 32


def test_it_listens_on_this_machine_only_and_stops(loaded, capfd):
    with serve(*loaded) as first, serve(*loaded) as second:
        ports = {int(s.url.split(":")[2].split("/")[0]) for s in (first, second)}
        bound = [
            c.laddr
            for c in psutil.Process().net_connections()
            if c.status == "LISTEN" and c.laddr.port in ports
        ]
        assert (
            len(ports) == 2
            and {address.ip for address in bound} == {"127.0.0.1"}
            and first.token != second.token
        )
        assert (
            ask(first, prompt="a", max_tokens=1)[0] == 200
            and ask(first, token="no", prompt="a")[0] == 401
        )
        with pytest.raises(OSError), serve(*loaded, port=ports.pop()):
            pass
    with pytest.raises(urllib.error.URLError):
        ask(first, "models")
    assert capfd.readouterr() == ("", "")


def test_a_model_in_train_mode_is_refused(loaded):
    with (
        pytest.raises(ValueError, match="^app: model must be in eval mode"),
        serve(deepcopy(loaded[0]).train(), None),
    ):
        pass


def test_a_model_of_which_one_module_is_in_train_mode_is_refused(loaded):
    for name, module in (model := deepcopy(loaded[0])).named_modules():
        module.training = True
        with pytest.raises(
            ValueError, match=f"model must be in eval mode.*, got train mode in {name}"
        ):
            app(model, None, "token")
        module.training = False
    assert app(model, None, "token")


def test_what_is_no_model_is_not_served():
    with pytest.raises(TypeError, match="^app: model must be an nn.Module, got str"):
        app("docs_lm", None, "token")


def test_the_command_prints_an_address_and_a_token_that_work():
    heard = partial(
        signal.signal, signal.SIGINT, signal.SIG_DFL
    )  # background jobs of a shell ignore it
    with subprocess.Popen(
        [sys.executable, "-m", "kdlab.teachers.server", str(FOLDER)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heard,
    ) as process:
        try:
            lines = [process.stdout.readline() for _ in range(4)]
            printed = dict(line.split() for line in lines[1:])
            assert ask(Server(printed["url"], printed["token"]), prompt="a", max_tokens=1)[0] == 200
        finally:
            process.send_signal(2)
            rest, errors = process.communicate(timeout=30)
    assert process.returncode == 0 and printed["token"] not in rest + errors and errors == ""
