"""kdlab.evidence.gguf_export: a file of GGUF says what the model says, in its own tokens."""

import importlib.util

import pytest
import torch
import transformers

import kdlab as kd
from kdlab.evidence import gguf_export
from kdlab.evidence.gguf_export import TOLERANCES

TEXTS = ["Return the sum of x, or 12.5 %.", "it's  a list\nof 3 things: one, two and ≥ three"]
SIZES = dict(
    vocab_size=1024,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
)


@pytest.fixture(scope="module")
def docs():
    return kd.language_model("docs_lm")


def rounding(kind, weights):
    """What a kind leaves of a matrix, by hand: eight bits are a step for every 32 in a row."""
    if kind != "q8_0":
        return weights.to({"f32": torch.float32, "f16": torch.half, "bf16": torch.bfloat16}[kind])
    blocks = weights.reshape(-1, 32)
    step = blocks.abs().amax(1, keepdim=True) / 127
    return ((blocks / step).round() * step.half()).reshape(weights.shape)


@pytest.mark.parametrize("kind", TOLERANCES)
def test_it_is_the_model_rounded_and_nothing_else(docs, tmp_path, kind):
    model, tokenizer = docs
    file = kd.to_gguf(model, tokenizer, tmp_path / "lm.gguf", TEXTS, kind)
    read, its = kd.language_model(file.path, torch.float32)
    for (name, wanted), found in zip(model.named_parameters(), read.parameters(), strict=True):
        if wanted.ndim > 1:
            wanted = rounding(kind, wanted.detach()).float()
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-6, msg=name)
    assert its(TEXTS)["input_ids"] == tokenizer(TEXTS)["input_ids"]
    assert its.eos_token_id == tokenizer.eos_token_id
    bits = {"f32": 32, "f16": 16, "bf16": 16, "q8_0": 8.5}[kind]
    weights = sum(p.numel() for p in model.parameters()) * bits / 8
    assert weights < file.nbytes < weights + 40_000  # and the vocabulary
    assert (file.difference > 0) == (kind != "f32")
    assert [one.name for one in tmp_path.iterdir()] == ["lm.gguf"]


@pytest.mark.parametrize(
    "configuration",
    [
        transformers.GPT2Config(vocab_size=1024, n_embd=32, n_layer=2, n_head=4, eos_token_id=0),
        transformers.LlamaConfig(**SIZES, tie_word_embeddings=True),
        transformers.MistralConfig(**SIZES),
        transformers.Gemma3TextConfig(**SIZES, head_dim=8),
    ],
    ids=lambda one: one.model_type,
)
def test_other_architectures(docs, tmp_path, configuration):
    model = transformers.AutoModelForCausalLM.from_config(configuration)
    assert kd.to_gguf(model, docs[1], tmp_path / "m.gguf", TEXTS, "f32").difference < 1e-5


def test_a_compiled_model_in_bfloat16_and_train_mode(docs, tmp_path):
    """What is compared is its weights' answers in float32, not what bfloat16 makes of them."""
    model = kd.language_model("docs_lm", torch.bfloat16)[0].train()
    file = kd.to_gguf(torch.compile(model), docs[1], tmp_path / "m.gguf", TEXTS, "f32")
    assert file.difference == 0 and model.training and model.dtype == torch.bfloat16


def test_a_trained_half_in_eight_bits_says_nearly_the_same(docs, tmp_path):
    student = kd.student_from(docs[0], every=2)
    file = kd.to_gguf(student, docs[1], tmp_path / "half.gguf", TEXTS, "q8_0")
    assert kd.language_model(file.path)[0].config.num_hidden_layers == 2
    assert file.nbytes < 450_000 and repr(file) == "GgufFile('half.gguf', q8_0)"


def test_the_file_is_read_where_the_model_is(docs, tmp_path, monkeypatch):
    """kdlab's device may be another than that of a model that was never moved."""
    reading, moved = gguf_export.language_model, []

    def elsewhere(*given):
        model, tokenizer = reading(*given)
        to = model.to
        monkeypatch.setattr(model, "to", lambda place: moved.append(place) or to(place))
        return model, tokenizer

    monkeypatch.setattr(gguf_export, "language_model", elsewhere)
    kd.to_gguf(*docs, tmp_path / "m.gguf", TEXTS)
    assert moved == [docs[0].device]


def adapted(model):
    peft = pytest.importorskip("peft")
    return peft.get_peft_model(model, peft.LoraConfig(target_modules=["q_proj"]))


def prompted(model):
    peft = pytest.importorskip("peft")
    return peft.get_peft_model(
        model, peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)
    )


def test_an_adapter_is_written_once_it_is_merged(docs, tmp_path):
    student = adapted(kd.language_model("docs_lm")[0])
    for weight in student.parameters():
        if weight.requires_grad:  # those of the adapter, whose second half starts at 0
            torch.nn.init.normal_(weight, std=0.1, generator=torch.Generator().manual_seed(0))
    ids = docs[1](TEXTS[0], return_tensors="pt")["input_ids"]
    with torch.no_grad():
        wanted = student(ids).logits
        assert (wanted - docs[0](ids).logits).abs().max() > 0.1
    with pytest.raises(ValueError, match="model must be without adapter, got Peft.*merge_and_"):
        kd.to_gguf(student, docs[1], tmp_path / "m.gguf", TEXTS)
    file = kd.to_gguf(student.merge_and_unload(), docs[1], tmp_path / "m.gguf", TEXTS, "f32")
    with torch.no_grad():
        found = kd.language_model(file.path, torch.float32)[0](ids).logits
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-3)


def other_words(tokenizer):
    """The same tokens, but words are cut at spaces only."""
    from tokenizers import pre_tokenizers

    found = kd.language_model("docs_lm")[1]
    found.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Whitespace(), pre_tokenizers.ByteLevel(use_regex=False)]
    )
    return found


def small_letters(tokenizer):
    """The same tokens and words, of a text in small letters: a file of GGUF has no place for it."""
    from tokenizers import normalizers

    found = kd.language_model("docs_lm")[1]
    found.backend_tokenizer.normalizer = normalizers.Lowercase()
    return found


WRONG = {
    "a text that is made small first": (
        lambda m, t: (m, small_letters(t), TEXTS),
        ValueError,
        "to_gguf: tokenizer must give the same tokens there",
    ),
    "a network": (
        lambda m, t: (torch.nn.Linear(2, 2), t, TEXTS),
        TypeError,
        "to_gguf: model must be a causal language model",
    ),
    "an adapter": (lambda m, t: (adapted(m), t, TEXTS), ValueError, "merge_and_unload"),
    "a learnt prompt": (lambda m, t: (prompted(m), t, TEXTS), ValueError, "learnt prompts"),
    "unknown there": (
        lambda m, t: (
            transformers.OPTForCausalLM(
                transformers.OPTConfig(
                    vocab_size=1024, hidden_size=16, ffn_dim=16, num_hidden_layers=1,
                    num_attention_heads=2, word_embed_proj_dim=16,
                )
            ),
            t,
            TEXTS,
        ),
        ValueError,
        "architecture that llama.cpp knows, got OPTForCausalLM",
    ),
    "words cut in another way": (
        lambda m, t: (m, other_words(t), TEXTS),
        ValueError,
        "can't be written by llama.cpp's converter",
    ),
    "a larger vocabulary": (
        lambda m, t: (
            transformers.LlamaForCausalLM(transformers.LlamaConfig(**SIZES | {"vocab_size": 99})),
            t,
            TEXTS,
        ),
        ValueError,
        "to_gguf: texts.0. must hold ids below 99",
    ),
    "no tokenizer": (lambda m, t: (m, "docs_lm", TEXTS), TypeError, "tokenizer must be one of tr"),
    "no text": (lambda m, t: (m, t, []), ValueError, "texts must hold a text"),
    "one string": (lambda m, t: (m, t, "a list"), TypeError, "to_gguf: texts must be"),
    "a number for a text": (lambda m, t: (m, t, [3]), TypeError, "to_gguf: texts must be"),
}  # fmt: skip


@pytest.mark.parametrize("given, error, words", WRONG.values(), ids=WRONG)
def test_what_has_no_form_there_is_named_and_leaves_nothing(docs, tmp_path, given, error, words):
    model, tokenizer, texts = given(kd.language_model("docs_lm")[0], docs[1])
    with pytest.raises(error, match=words):
        kd.to_gguf(model, tokenizer, tmp_path / "m.gguf", texts)
    assert list(tmp_path.iterdir()) == []


def test_wrong_arguments(docs, tmp_path):
    path = tmp_path / "m.gguf"
    for options, words in [
        (dict(kind="int4"), "kind must be one of"),
        (dict(tolerance=-1), "tolerance must be"),
    ]:
        with pytest.raises(ValueError, match=f"to_gguf: {words}"):
            kd.to_gguf(*docs, path, TEXTS, **options)
    with pytest.raises(ValueError, match="path must end in .gguf, got 'm.bin'"):
        kd.to_gguf(*docs, tmp_path / "m.bin", TEXTS)
    with pytest.raises(ValueError, match="to tolerance 1e-06 of its largest logit"):
        kd.to_gguf(*docs, path, TEXTS, "q8_0", tolerance=1e-6)
    assert list(tmp_path.iterdir()) == []


def test_a_text_that_is_too_long_is_cut(docs, tmp_path):
    config = transformers.GPT2Config(
        vocab_size=1024, n_embd=32, n_layer=1, n_head=4, eos_token_id=0
    )
    model, long = transformers.GPT2LMHeadModel(config), "a list of " * 600
    assert len(docs[1](long)["input_ids"]) > config.n_positions == 1024
    assert kd.to_gguf(model, docs[1], tmp_path / "m.gguf", [long], "f32").difference < 1e-5


def test_a_folder_that_is_not_there_is_named(docs, tmp_path):
    with pytest.raises(FileNotFoundError, match="no folder .*nowhere to write m.gguf in"):
        kd.to_gguf(*docs, tmp_path / "nowhere" / "m.gguf", TEXTS)


def test_a_file_that_was_there_stays_whole_when_the_next_one_fails(docs, tmp_path):
    path = tmp_path / "m.gguf"
    kd.to_gguf(*docs, path, TEXTS)
    before = path.read_bytes()
    with pytest.raises(ValueError, match="tolerance"):
        kd.to_gguf(*docs, path, TEXTS, "q8_0", tolerance=0)
    assert path.read_bytes() == before


@pytest.mark.skipif(
    importlib.util.find_spec("llama_cpp") is None,
    reason="no llama_cpp: its engine is compiled when installed, see kdlab[llama]",
)
@pytest.mark.parametrize("kind", ["f32", "q8_0"])
def test_llama_cpp_says_the_same(docs, tmp_path, kind):
    import llama_cpp
    import numpy

    model, tokenizer = docs
    file = kd.to_gguf(model, tokenizer, tmp_path / "m.gguf", TEXTS, kind)
    engine = llama_cpp.Llama(str(file.path), n_ctx=128, logits_all=True, verbose=False)
    for text in TEXTS:
        ids = tokenizer(text)["input_ids"]
        assert engine.tokenize(text.encode(), add_bos=False) == ids
        engine.reset()
        engine.eval(ids)
        found = torch.tensor(numpy.array(engine.scores[: len(ids)]))
        with torch.no_grad():
            wanted = model(torch.tensor([ids])).logits[0]
        far = (found - wanted).abs().max() / wanted.abs().max()
        assert far < {"f32": 1e-3, "q8_0": TOLERANCES["q8_0"]}[kind]
