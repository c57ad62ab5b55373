"""The layers of two encoders, side by side."""

import pytest
import torch
import transformers as hf
from tiny_models import DECODERS, ENCODERS, FAMILIES, IDS, H, build
from torch import nn

import kdlab as kd
from kdlab.losses.encoders import (
    EncoderLoss,
    Relations,
    attention_scores,
    find_encoder,
    mean_rows,
)
from kdlab.losses.hidden import tap


@pytest.mark.parametrize("family", ENCODERS)
def test_an_encoder_is_found_under_its_head(family):
    model = build(family)
    encoder = find_encoder("test", model)
    assert encoder.blocks == [f"{FAMILIES[family][2]}.{i}" for i in range(4)]
    assert (encoder.heads, encoder.width, encoder.embedding) == (
        3,
        H,
        8 if family == "ELECTRA" else H,
    )
    modules = dict(model.named_modules())
    q, k, v = (modules[encoder.name(part, 2)] for part in ("query", "key", "value"))
    block = modules[FAMILIES[family][2] + ".2"]
    inside = block.attention if family == "DistilBERT" else block.attention.self
    theirs = ("q_lin", "k_lin", "v_lin") if family == "DistilBERT" else ("query", "key", "value")
    assert [q, k, v] == [getattr(inside, name) for name in theirs]
    assert modules[encoder.name("hidden", 2)] is block
    assert "Embeddings" in type(modules[encoder.name("embedding", 0)]).__name__


def bart(kind):
    sizes = dict(d_model=8, encoder_layers=1, decoder_layers=1, vocab_size=9)
    return kind(hf.BartConfig(encoder_attention_heads=2, decoder_attention_heads=2, **sizes))


@pytest.mark.parametrize("family", DECODERS)
def test_a_decoder_is_found_under_its_head(family):
    model = build(family)
    found = find_encoder("test", model)
    assert found.blocks == [f"{DECODERS[family][2]}.{i}" for i in range(4)]
    assert (found.heads, found.width, found.embedding, found.causal) == (3, H, H, True)
    assert found.rotary == (family != "GPT-2")
    assert found.value == (4 if family == "Qwen2" else H)  # one head of values, shared
    modules = dict(model.named_modules())
    with torch.no_grad():
        states = model(IDS, output_hidden_states=True).hidden_states
        for part, block in [("embedding", 0), *(("hidden", i) for i in range(3))]:
            with tap(model, name := found.name(part, block)) as layers:
                model(IDS)
            torch.testing.assert_close(layers[name], states[block + (part == "hidden")])
        with tap(model, name := found.name("value", 1)) as layers:
            model(IDS)
        block = modules[found.blocks[1]]
        inside = getattr(block, "input_layernorm", None) or block.ln_1
        value = modules[name](inside(states[1]))
        value = value[..., 2 * H :] if family == "GPT-2" else value
    torch.testing.assert_close(found.own("value", layers[name]), value)


def test_which_way_a_model_looks_is_its_attention_s_to_say():
    encoder = bart(hf.BartModel).encoder
    assert not find_encoder("test", encoder).causal
    loss = Relations(query_key=0)
    with pytest.raises(ValueError, match="Relations: student and teacher must be of one kind.*got"):
        loss.prepare(build("Llama"), encoder)


def test_an_encoder_that_is_not_there():
    two = nn.ModuleDict({"a": build("BERT"), "b": build("BERT")})
    two.config = FAMILIES["BERT"][1]
    odd, bare = nn.Module(), nn.Module()
    odd.my_encoder, odd.config = build("BERT").bert.encoder, two.config
    bare.encoder, bare.embeddings = build("BERT").bert.encoder, build("BERT").bert.embeddings
    decoder = build("BERT", is_decoder=True)
    for model, got in [
        (nn.Linear(2, 2), "none in Linear"),
        (
            hf.T5Model(hf.T5Config(vocab_size=9, d_model=8, d_kv=4, d_ff=8, num_layers=1)),
            "none in T5Model",
        ),
        (bart(hf.BartModel), "['encoder.layers', 'decoder.layers'] in BartModel"),
        (two, "['a.bert.encoder.layer', 'b.bert.encoder.layer'] in ModuleDict"),
        (bare, "['encoder.layer'] in Module"),
        (odd, "none in Module"),
        (decoder, "['bert.encoder.layer'] in BertForSequenceClassification"),
    ]:
        with pytest.raises(ValueError) as error:
            find_encoder("Owner", model)
        message = str(error.value)
        assert message.startswith("Owner: the model must hold one encoder") and message.endswith(
            "got " + got
        )
        assert (
            "'encoder.layer.0.attention.self.key'" in message
            and "'transformer.layer.0.attention.v_lin'" in message
        )


class Gap(EncoderLoss):
    def fit(self, student, teacher):
        self.scale = nn.Linear(1, 1)
        return [("query", 1), ("key", 1)], [("query", 0), ("key", 0)]

    def rows(self, student, teacher, mask):
        self.seen = student, teacher, mask
        return mean_rows((student["query", 1] - teacher["query", 0]).abs(), mask[..., None])


@pytest.mark.parametrize("family", ENCODERS)
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_softmax_of_the_scores_is_the_attention_of_transformers(family, attention):
    model, reference = (
        build(family, _attn_implementation=attention),
        build(family, _attn_implementation="eager"),
    )
    mask = torch.tensor([[1] * 9, [1] * 5 + [0] * 4, [0] * 2 + [1] * 7])
    loss = Gap()
    loss.prepare(model, model)
    with loss.collect(model, "student") as layers, torch.no_grad():
        model(IDS, attention_mask=mask)
        there = reference(IDS, attention_mask=mask, output_attentions=True).attentions[1]
    encoder = find_encoder("test", model)
    scores = attention_scores(
        layers[encoder.name("query", 1)], layers[encoder.name("key", 1)], encoder.heads
    )
    here = scores.masked_fill(mask[:, None, None] == 0, -torch.inf).softmax(-1)
    torch.testing.assert_close(here, there, rtol=1e-4, atol=1e-6)
    assert not any(module._forward_hooks for module in model.modules())


def test_mean_rows_by_hand():
    x = torch.arange(12.0).reshape(2, 3, 2)
    x[1] = torch.nan
    mask = torch.tensor([[True, False, True], [False, False, False]])
    assert mean_rows(x, mask[..., None]).tolist() == [(0 + 1 + 4 + 5) / 4, 0.0]


def test_the_protocol_in_the_wrong_order():
    model, loss = build("BERT"), Gap()
    with pytest.raises(ValueError, match="Gap: collect expects prepare"):
        loss.collect(model, "student")
    with pytest.raises(
        ValueError, match="Gap: student_layers and teacher_layers must be what collect"
    ):
        loss({}, {}, torch.ones(1, 2))
    loss.prepare(model, model)
    with pytest.raises(ValueError, match="side 'student' or 'teacher', got 'pupil'"):
        loss.collect(model, "pupil")
    with pytest.raises(ValueError, match=r"filled by a forward pass; got \[\] and \[\]"):
        loss({}, {}, torch.ones(1, 2))


def wider(model):
    model.config.hidden_size = 2 * H
    return model


def shorter(model):
    model.get_submodule("bert.encoder").layer = model.bert.encoder.layer[:3]
    return model


def lora(model):
    peft = pytest.importorskip("peft")
    return peft.get_peft_model(model, peft.LoraConfig(target_modules=["query"]))


CHANGES = {  # what was done to the model since prepare, and what the error says of it
    "data parallel": (nn.DataParallel, r"got \['module.bert.encoder.layer'\] in DataParallel"),
    "compiled": (torch.compile, "got 4 blocks from '_orig_mod.bert.encoder.layer.0' on"),
    "an adapter around it": (lora, "got 4 blocks from 'base_model.model.bert.encoder.layer.0' on"),
    "cut": (shorter, "got 3 blocks from 'bert.encoder.layer.0' on"),
    "another width": (
        wider,
        f"got 4 blocks from 'bert.encoder.layer.0' on, 3 heads, width {2 * H}",
    ),
    "its encoder alone": (lambda model: model.bert, "got 4 blocks from 'encoder.layer.0' on"),
    "another family": (
        lambda _: build("DistilBERT"),
        "got 4 blocks from 'distilbert.transformer.layer.0' on",
    ),
    "no encoder": (lambda _: nn.Linear(2, 2), "got none in Linear"),
}


@pytest.mark.parametrize("side", ["student", "teacher"])
@pytest.mark.parametrize("change", CHANGES)
def test_a_model_wrapped_or_changed_since_prepare_is_refused(change, side):
    loss, model = Gap(), build("BERT")
    loss.prepare(model, model)
    changed, got = CHANGES[change]
    with pytest.raises(
        ValueError,
        match=(
            f"^Gap: collect: model must be the {side} that prepare saw, 4 blocks from "
            f"'bert.encoder.layer.0' on, 3 heads, width {H}, embedding {H}; {got}.*; "
            "expected it without a wrapper"
        ),
    ):
        loss.collect(changed(model), side)


def test_sides_that_are_mixed_up_are_refused():
    loss, teacher = Gap(), build("BERT")
    student = kd.student_from(teacher, every=2)
    loss.prepare(student, teacher)
    for model, side in [(teacher, "student"), (student, "teacher")]:
        with pytest.raises(
            ValueError, match=f"Gap: collect: model must be the {side} that prepare saw"
        ):
            loss.collect(model, side)


@pytest.mark.parametrize("around", [lambda model: model, lora, torch.compile])
def test_a_model_wrapped_before_prepare_is_collected_from(around):
    loss, model = Gap(), build("BERT")
    wrapped = around(model)
    loss.prepare(wrapped, wrapped)
    with loss.collect(wrapped, "student") as layers, torch.no_grad():
        (wrapped if around is not torch.compile else model)(IDS)
    assert [tuple(x.shape) for x in layers.values()] == [(3, 9, H)] * 2


def test_prepare_draws_from_its_seed_alone():
    model, losses = build("BERT").double(), [Gap(), Gap(), Gap()]
    for loss, seed in zip(losses, [0, 0, 1], strict=True):
        loss.prepare(model, model, seed=seed)
        torch.rand(1)
    drawn = [loss.scale.weight.item() for loss in losses]
    assert drawn[0] == drawn[1] != drawn[2] and losses[0].scale.weight.dtype == torch.float64
    with torch.random.fork_rng():
        state = torch.manual_seed(7).get_state()  # a state that no prepare leaves behind
        Gap().prepare(model, model)
        assert torch.equal(torch.get_rng_state(), state)


def test_rows_get_clean_layers():
    loss, model = Gap(), build("BERT")
    loss.prepare(model, model)
    mask = torch.tensor([[1, 1, 0], [0, 1, 1]])
    names = loss.names["student"].values(), loss.names["teacher"].values()
    for dtype, expected in [(torch.bfloat16, torch.float32), (torch.float64, torch.float64)]:
        mine, theirs = (
            {name: torch.randn(2, 3, H, dtype=dtype) for name in side} for side in names
        )
        for x in [*mine.values(), *theirs.values()]:
            x[mask == 0] = torch.nan
            x.requires_grad_()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rows = loss(mine, theirs, mask)
            assert not torch.is_autocast_enabled("cpu") or rows.dtype == expected
        student, teacher, real = loss.seen
        assert real.dtype == torch.bool and torch.equal(real, mask == 1) and rows.dtype == expected
        for x in [*student.values(), *teacher.values()]:
            assert (
                x.dtype == expected
                and x.isfinite().all()
                and (x[mask == 0] == 0).all()
                and x[mask == 1].all()
            )
        assert not any(x.requires_grad for x in teacher.values()) and all(
            x.requires_grad for x in student.values()
        )
        rows.sum().backward()
        assert mine[loss.names["student"]["query", 1]].grad.isfinite().all()
    assert torch.equal(loss.seen[2], mask == 1)
    loss({n: torch.randn(2, 3, H) for n in names[0]}, {n: torch.randn(2, 3, H) for n in names[1]})
    assert loss.seen[2].all() and loss.seen[2].shape == (2, 3)


@pytest.mark.parametrize(
    "side, shape, mask",
    [
        ("student", (2, 3, H), (2, 4)),
        ("teacher", (2, 4, H), (2, 3)),
        ("student", (3, H), (2, 3)),
        ("teacher", (2, 3, H), (2, 1, 3)),
    ],
)
def test_layers_and_masks_that_do_not_go_together(side, shape, mask):
    loss, model = Gap(), build("BERT")
    loss.prepare(model, model)
    layers = {
        key: {
            name: torch.zeros(shape if key == side or len(mask) > 2 else (2, 3, H))
            for name in names.values()
        }
        for key, names in loss.names.items()
    }
    with pytest.raises(
        ValueError, match=r"Gap: \w+_layers must be \(B, L, H\) and attention_mask \(B, L\), got"
    ):
        loss(layers["student"], layers["teacher"], torch.ones(mask))
