"""What people hand to the trainer beside the plain case: the right number, or an error that says
what was expected."""

import copy
import warnings

import pytest
import torch
import transformers as hf
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from trainers import (
    V,
    bert,
    llama,
    loss_of,
    padded_pair,
    sentences,
    texts,
    trained,
    trainer_of,
    whole,
)

import kdlab as kd
from kdlab.losses.fused import linear_divergence

# --- vocabularies padded to other widths ---


def cut(model):
    """The same model with the padded columns taken off."""
    small = copy.deepcopy(model)
    small.resize_token_embeddings(V)
    return small


@pytest.mark.parametrize("fused", [False, True])
def test_padded_columns_have_no_probability_and_no_gradient(tmp_path, fused):
    student, teacher = padded_pair()
    small, small_teacher = cut(student), cut(teacher)
    rows = texts(6)
    loss = loss_of(trainer_of(tmp_path, student, teacher, vocab_size=V, fused=fused), rows)
    expected = loss_of(trainer_of(tmp_path, small, small_teacher, fused=False), rows)
    assert loss.item() == pytest.approx(expected.item(), abs=1e-9)
    loss.backward()
    expected.backward()
    assert (student.lm_head.weight.grad[:V] - small.lm_head.weight.grad).abs().max() < 1e-9
    assert student.lm_head.weight.grad[V:].abs().max() == 0
    assert (
        student.model.layers[0].mlp.up_proj.weight.grad
        - small.model.layers[0].mlp.up_proj.weight.grad
    ).abs().max() < 1e-9


@settings(max_examples=30)
@given(
    widths=st.tuples(st.integers(5, 12), st.integers(5, 12)),
    vocab=st.integers(2, 5),
    bias=st.booleans(),
    divergence=st.sampled_from([kd.forward_kl, kd.reverse_kl, kd.jsd, kd.tvd]),
    alpha=st.sampled_from([1.0, 0.4]),
    seed=st.integers(0, 99),
)
def test_the_fused_loss_of_padded_heads_is_that_of_heads_cut_off(
    widths, vocab, bias, divergence, alpha, seed
):
    g = torch.Generator().manual_seed(seed)
    heads = [nn.Linear(4, w, bias=bias).double() for w in widths]
    short = [nn.Linear(4, vocab, bias=bias).double() for _ in widths]
    for head, small in zip(heads, short, strict=True):
        small.weight.data = head.weight.data[:vocab].clone()
        if bias:
            small.bias.data = head.bias.data[:vocab].clone()
    h, ht = (
        torch.randn(6, 4, generator=g, dtype=torch.float64, requires_grad=True) for _ in range(2)
    )
    labels = torch.randint(0, vocab, (6,), generator=g)
    objective = kd.TokenLoss(divergence, alpha=alpha)
    loss = linear_divergence(
        h, heads[0], ht, heads[1], labels, objective, chunk=2, vocab_size=vocab
    )
    plain = objective(short[0](h), short[1](ht).detach(), labels)
    assert loss.item() == pytest.approx(plain.item(), abs=1e-9)
    of = torch.autograd.grad(loss, [h, heads[0].weight])
    of_plain = torch.autograd.grad(plain, [h, short[0].weight])
    assert (of[0] - of_plain[0]).abs().max() < 1e-9 and (
        of[1][:vocab] - of_plain[1]
    ).abs().max() < 1e-9
    assert of[1][vocab:].abs().sum() == 0


# --- precision ---


def test_small_steps_change_every_weight_of_a_half_precision_checkpoint(tmp_path):
    student, teacher = llama(8, seed=1).to(torch.bfloat16), llama(16, seed=2).to(torch.bfloat16)
    before = copy.deepcopy(student.float()).state_dict()
    kd.fit(student.to(torch.bfloat16), whole(texts(16)), teacher=teacher, lr=1e-5, epochs=2)
    assert student.dtype == torch.float32 and teacher.dtype == torch.bfloat16
    moved = torch.cat(
        [(student.state_dict()[k] != before[k]).flatten() for k in before if "rotary" not in k]
    )
    assert moved.float().mean() > 0.9  # rare tokens of a tiny text stay where they are


def test_language_model_gives_the_dtype_asked_for(tmp_path):
    _, tokenizer = kd.language_model("docs_lm")
    llama(8, vocab=64).to(torch.bfloat16).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    assert kd.language_model(tmp_path)[0].dtype == torch.bfloat16
    assert kd.language_model(tmp_path, dtype=torch.float32)[0].dtype == torch.float32


# --- recomputation ---


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize(
    "hidden",
    [None, kd.LayerMap([(0, 0), (1, 1)]), kd.Relations()],
    ids=["none", "map", "relations"],
)
def test_gradients_under_recomputation_are_right_or_refused(tmp_path, hidden, reentrant):
    student, plain, teacher = bert(8, seed=1), bert(8, seed=1), bert(8, seed=2)
    rows = [r | {"labels": abs(r["labels"])} for r in sentences(6)]
    expected = loss_of(trainer_of(tmp_path, plain, teacher, hidden=copy.deepcopy(hidden)), rows)
    expected.backward()
    trainer = trainer_of(tmp_path, student, teacher, hidden=hidden)
    student.gradient_checkpointing_enable({"use_reentrant": reentrant})
    student.train()
    if reentrant and hidden is not None:
        with pytest.raises(ValueError, match="hidden: layer .* without a gradient.*use_reentrant"):
            loss_of(trainer, rows)
        return
    loss = loss_of(trainer, rows)
    loss.backward()
    assert loss.item() == pytest.approx(expected.item(), abs=1e-9)
    for (name, p), q in zip(student.named_parameters(), plain.parameters(), strict=True):
        if q.grad is not None and not (reentrant and "embeddings" in name):
            assert (p.grad - q.grad).abs().max() < 1e-9, name


def test_a_student_that_diverges_in_a_fit_is_named(tmp_path):
    with pytest.raises(ValueError, match="fit: student has diverged.*got 1e\\+38|holds .* NaN"):
        kd.fit(
            llama(8).float(), whole(texts(16)), teacher=llama(8, seed=2).float(), lr=1e38, steps=1
        )


# --- ends of text ---


def test_an_end_of_text_that_is_never_learnt_is_warned_of_once(tmp_path):
    _, tokenizer = kd.language_model("docs_lm")
    tokenizer.pad_token = tokenizer.eos_token
    end, size = tokenizer.eos_token_id, len(tokenizer)
    rows = [{"input_ids": [5, 6, 7 + i, end], "labels": [-100, -100, 7 + i, end]} for i in range(8)]
    pair = llama(8, seed=1, vocab=size), llama(8, seed=2, vocab=size)
    lost = hf.DataCollatorForLanguageModeling(tokenizer, mlm=False)
    with pytest.warns(
        UserWarning, match="the end of text .* never counts, its label is −100"
    ) as seen:
        trained(tmp_path, *pair, [{"input_ids": r["input_ids"]} for r in rows], data_collator=lost)
    assert len([w for w in seen if "end of text" in str(w.message)]) == 1
    unfinished = [{k: v[:3] for k, v in r.items()} for r in rows]
    with pytest.warns(UserWarning, match="never counts, no text of the batch ends with it"):
        trained(tmp_path, *pair, unfinished, processing_class=tokenizer)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*end of text.*")
        trained(tmp_path, *pair, rows, processing_class=tokenizer)
        trained(
            tmp_path, *pair, whole(unfinished), processing_class=tokenizer
        )  # running text has no ends to learn
