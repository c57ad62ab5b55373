"""What people hand to the trainer beside the plain case: the right number, or an error that says
what was expected."""

import copy
import warnings
from types import SimpleNamespace

import pytest
import torch
import transformers as hf
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from trainers import V, bert, llama, loss_of, sentences, texts, trained, trainer_of, whole

import kdlab as kd
from kdlab.data.tokenizers import same_tokenizer
from kdlab.losses.fused import linear_divergence
from kdlab.training import trainer_checks as checks

# --- vocabularies padded to other widths ---


def padded_pair():
    """A student of 40 columns and a teacher of 36, of which 32 are tokens; the others say loud
    nonsense."""
    student, teacher = llama(8, seed=1, vocab=40), llama(16, seed=2, vocab=36)
    for model in (student, teacher):
        model.lm_head.weight.data[V:] *= 5
    return student, teacher


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


def test_widths_that_differ_are_spoken_of_when_the_trainer_is_made(tmp_path):
    student, teacher = padded_pair()
    with pytest.raises(
        ValueError, match="40 tokens or classes, got 36; .*vocab_size=.*processing_class.*uld"
    ):
        trainer_of(tmp_path, student, teacher)
    for wrong in (0, 37, 2.5, "32"):
        with pytest.raises(
            ValueError, match="vocab_size: argument must be a whole number from 1 to the narrower"
        ):
            trainer_of(tmp_path, student, teacher, vocab_size=wrong)
    with pytest.raises(ValueError, match="linear_divergence: vocab_size must be"):
        linear_divergence(
            torch.zeros(1, 8),
            student.lm_head,
            torch.zeros(1, 16),
            teacher.lm_head,
            torch.zeros(1, dtype=torch.long),
            vocab_size=37,
        )
    five = hf.BertForSequenceClassification(
        hf.BertConfig(
            hidden_size=8,
            num_hidden_layers=1,
            num_attention_heads=1,
            intermediate_size=8,
            vocab_size=V,
            num_labels=5,
        )
    ).double()
    with pytest.raises(ValueError, match="3 tokens or classes, got 5"):
        trainer_of(tmp_path, bert(8), five)


def test_the_tokenizer_says_how_many_tokens_there_are(tmp_path):
    _, tokenizer = kd.language_model("docs_lm")
    known = same_tokenizer(tokenizer, tokenizer).vocab_size
    student, teacher = llama(8, vocab=known + 8), llama(8, vocab=known + 3)
    assert trainer_of(tmp_path, student, teacher, processing_class=tokenizer).vocab_size == known


# --- precision ---


def test_a_student_in_half_precision_is_refused_or_asked_for_by_name(tmp_path):
    for dtype in (torch.bfloat16, torch.float16):
        with pytest.raises(
            ValueError, match=f"model: argument must be in float32.*half_precision=True.*{dtype}"
        ):
            trainer_of(tmp_path, llama(8).to(dtype), llama(8, seed=2))
    student = llama(8).to(torch.bfloat16)
    assert (
        trainer_of(tmp_path, student, llama(8, seed=2), half_precision=True).model.dtype
        == torch.bfloat16
    )


def test_a_frozen_half_precision_base_under_an_adapter_is_no_half_precision_student(tmp_path):
    from peft import LoraConfig, get_peft_model

    base = get_peft_model(llama(8).to(torch.bfloat16), LoraConfig(target_modules=["q_proj"]))
    assert trainer_of(tmp_path, base, llama(8, seed=2)).model is base


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


# --- what an argument may be ---


@pytest.mark.parametrize(
    "options, error, says",
    [
        (
            {"objective": kd.reverse_kl},
            TypeError,
            (
                "objective: argument must be an instance such as kd.TokenLoss\\(kd.reverse_kl\\),"
                " got reverse_kl"
            ),
        ),
        (
            {"objective": kd.KDLoss},
            TypeError,
            "objective: argument must be an instance.*got KDLoss",
        ),
        ({"objective": "kl"}, TypeError, "objective: argument must be an instance.*got str"),
        (
            {"objective": kd.HiddenLoss(kd.features.fitnets, [("1", "3")])},
            TypeError,
            "HiddenLoss belongs to kd.distill",
        ),
        (
            {"hidden": kd.HiddenLoss(kd.features.fitnets, [("1", "3")])},
            ValueError,
            (
                "hidden: argument must be a loss on the "
                "layers.*HiddenLoss belongs to kd.distill.*got fitnets"
            ),
        ),
        (
            {"hidden": kd.LayerMap},
            ValueError,
            "hidden: argument must be a loss on the layers.*got LayerMap",
        ),
        (
            {"on_policy": 0.5},
            ValueError,
            "on_policy: argument must be as kd.OnPolicy, or None, got float",
        ),
        ({"objective": kd.SquaredError()}, ValueError, "objective: argument must be for classes"),
    ],
)
def test_what_is_no_objective_is_called_so(tmp_path, options, error, says):
    with pytest.raises(error, match=says):
        trainer_of(tmp_path, bert(8), bert(8, seed=2), **options)


def test_what_is_no_model_is_called_so(tmp_path):
    with pytest.raises(ValueError, match="model: argument must be an nn.Module, got str"):
        trainer_of(tmp_path, "gpt2", llama(8))

    class Odd(nn.Module):
        def forward(self, input_ids):
            return {"scores": input_ids}

    with pytest.raises(
        ValueError, match="must answer a tensor of logits, or 'logits', got \\['scores'\\]"
    ):
        loss_of(trainer_of(tmp_path, bert(8), Odd()), [{"input_ids": [1, 2], "labels": 0}])


# --- context ---


def short(width=8, room=6, seed=0):
    return llama(width, seed=seed, max_position_embeddings=room)


@pytest.mark.parametrize("rooms", [(6, 9), (9, 6)])
def test_a_text_longer_than_either_model_reads_is_named_before_training(tmp_path, rooms):
    from datasets import Dataset

    student, teacher = short(room=rooms[0]), short(room=rooms[1], seed=2)
    rows = [{"input_ids": [1] * n, "labels": [1] * n} for n in (3, 6, 7)]
    before = copy.deepcopy(student.state_dict())
    for data in (rows, Dataset.from_list(rows)):
        with pytest.raises(
            ValueError, match="must fit the models' 6 positions, got 7 tokens in row 2"
        ):
            trained(tmp_path, student, teacher, data)
    with pytest.raises(
        ValueError, match="batches must fit the models' 6 positions.*longest text with 7"
    ):
        loss_of(trainer_of(tmp_path, student, teacher), rows)
    assert all(torch.equal(before[k], v) for k, v in student.state_dict().items())
    trained(tmp_path, student, teacher, rows[:2])


def test_an_id_that_is_no_token_is_named_before_training(tmp_path):
    from datasets import Dataset

    rows = [{"input_ids": [1, 2], "labels": [1, 2]}, {"input_ids": [1, V], "labels": [1, -100]}]
    for data in (rows, Dataset.from_list(rows)):
        with pytest.raises(
            ValueError, match="input_ids must be below the models' 32 tokens, got 32.*tokenizer"
        ):
            trained(tmp_path, llama(8), llama(8, seed=2), data)
    with pytest.raises(
        ValueError, match="below the models' 31 tokens, got 31"
    ):  # the teacher's are fewer
        trained(
            tmp_path, llama(8), llama(8, seed=2, vocab=31), [{"input_ids": [1, 31]}], vocab_size=31
        )


def test_a_student_that_diverges_in_a_fit_is_named(tmp_path):
    with pytest.raises(ValueError, match="fit: student has diverged.*got 1e\\+38|holds .* NaN"):
        kd.fit(
            llama(8).float(), whole(texts(16)), teacher=llama(8, seed=2).float(), lr=1e38, steps=1
        )


def test_packed_texts_may_be_longer_together_than_one_may_be(tmp_path):
    rows = [{"input_ids": [1, 2, 3, 4]}] * 4
    trained(
        tmp_path,
        short(),
        short(seed=2),
        rows,
        data_collator=hf.DataCollatorWithFlattening(return_tensors="pt"),
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


def test_sharding_that_would_not_happen_is_refused(monkeypatch):
    """accelerate passes FSDP over on processors, and says nothing: each would train alone."""

    def processes(kind, count=2):
        return SimpleNamespace(distributed_type=SimpleNamespace(value=kind), num_processes=count)

    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(ValueError, match="args: argument must leave FSDP out .* 2 processes of"):
        checks.check_sharding(processes("MULTI_CPU"))
    checks.check_sharding(processes("FSDP"))
    checks.check_sharding(processes("NO", 1))  # one process is whole
    monkeypatch.delenv("ACCELERATE_USE_FSDP")
    checks.check_sharding(processes("MULTI_CPU"))
