"""The sampled reverse KL against the full one: every text over four words, by its weight."""

import math

import pytest
import torch
from trainers import arguments, llama, texts
from transformers import LlamaConfig, LlamaForCausalLM

import kdlab as kd

BASELINES = ["place", "mean", "none"]
T, P = 3, 4  # places and words


def logits(seed):
    return 2 * torch.randn(T, P, generator=torch.Generator().manual_seed(seed)).double()


def gradient(loss, z):
    z = z.clone().requires_grad_()
    value = loss(z)
    value.backward()
    return value.detach(), z.grad


def of_each_text(baseline, temperature):
    """(weight, value, gradient) of every text that a student may write at three places."""
    z, teacher = logits(0), logits(1)
    objective = kd.SampledReverseKL(baseline, temperature)
    q = (z / temperature).softmax(-1)
    for text in torch.cartesian_prod(*[torch.arange(P)] * T):
        weight = q.gather(-1, text[:, None]).prod()
        yield weight, *gradient(lambda z, y=text: objective(z, teacher, y), z)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
@pytest.mark.parametrize("baseline", BASELINES)
def test_in_the_mean_over_all_texts_it_is_the_reverse_kl(baseline, temperature):
    texts = list(of_each_text(baseline, temperature))
    assert sum(w for w, _, _ in texts) == pytest.approx(1)
    value, slope = (sum(w * x for w, *both in texts for x in [both[k]]) for k in (0, 1))
    full, exact = gradient(
        lambda z: kd.reverse_kl(z, logits(1), temperature=temperature), logits(0)
    )
    assert value.item() == pytest.approx(full.item(), abs=1e-6)
    assert torch.allclose(slope, exact, atol=1e-6)


def test_a_baseline_takes_variance_away():
    variance = {}
    for baseline in BASELINES:
        texts = list(of_each_text(baseline, 1.0))
        mean = sum(w * g for w, _, g in texts)
        variance[baseline] = sum(w * (g - mean).square().sum() for w, _, g in texts).item()
    assert variance["place"] < variance["none"]


def test_by_hand_on_a_vocabulary_of_four():
    """−(r − b)(onehot(y) − q) / places, as it is written on a blackboard."""
    z, teacher, y = logits(2), logits(3), torch.tensor([1, 3, 0])
    q, p = z.softmax(-1), teacher.softmax(-1)
    reward = torch.tensor([math.log(p[t, y[t]] / q[t, y[t]]) for t in range(T)]).double()
    for baseline, b in (("none", 0.0), ("place", -(q * (q / p).log()).sum(-1))):
        _, slope = gradient(lambda z, how=baseline: kd.SampledReverseKL(how)(z, teacher, y), z)
        hand = -(reward - b)[:, None] * (torch.nn.functional.one_hot(y, P) - q) / T
        assert torch.allclose(slope, hand, atol=1e-6)


@pytest.mark.parametrize("baseline", BASELINES)
def test_what_does_not_count_changes_nothing(baseline):
    z, teacher, y = logits(4), logits(5), torch.tensor([1, -100, 2])
    loss, keep = kd.SampledReverseKL(baseline), torch.tensor([0, 2])
    value, slope = gradient(lambda z: loss(z, teacher, y), z)
    alone, own = gradient(lambda z: loss(z, teacher[keep], y[keep]), z[keep])
    assert value.item() == pytest.approx(alone.item())
    assert (slope[1] == 0).all() and torch.allclose(slope[keep], own)


def test_a_student_comes_nearer_to_its_teacher_on_its_own_text(tmp_path):
    torch.manual_seed(0)
    sizes = dict(vocab_size=6, hidden_size=16, num_attention_heads=2, num_hidden_layers=1)
    student, teacher = (
        LlamaForCausalLM(LlamaConfig(**sizes, intermediate_size=16)) for _ in range(2)
    )
    teacher.lm_head.weight.data *= 40
    rows = [{"input_ids": torch.tensor([i % 6]), "labels": torch.tensor([-100])} for i in range(32)]
    written = kd.completions(student, [[i % 6] for i in range(64)], 8, eos=(), seed=1)

    def apart():
        with torch.no_grad():
            both = [m.eval()(written["input_ids"]).logits for m in (student, teacher)]
        return kd.reverse_kl(*both).item()

    before = apart()
    kd.DistillationTrainer(
        student,
        arguments(tmp_path, 16, max_steps=40, learning_rate=2e-2, optim="adamw_torch"),
        teacher=teacher,
        objective=kd.SampledReverseKL(),
        on_policy=kd.OnPolicy(share=1.0, max_new_tokens=8, eos=(), pad=0),
        train_dataset=rows,
        data_collator=kd.Collator(),
    ).train()
    assert apart() < 0.7 * before


@pytest.mark.parametrize(
    "drawn",
    [
        None,
        {"share": 0.5},
        {"temperature": 2.0},
        {"top_p": 0.9},
        {"top_k": 3},
        {"long_prompts": "skip"},
    ],
)
def test_the_trainer_refuses_text_that_the_student_did_not_draw_so(drawn, tmp_path):
    models = llama(8), llama(8, seed=1)
    own = drawn and kd.OnPolicy(**{"share": 1.0, "max_new_tokens": 2, "eos": (), "pad": 0} | drawn)
    with pytest.raises(ValueError, match=r"on_policy: argument must be OnPolicy\(share=1"):
        kd.DistillationTrainer(
            models[0],
            arguments(tmp_path),
            teacher=models[1],
            objective=kd.SampledReverseKL(),
            on_policy=own,
            train_dataset=texts(4),
            data_collator=kd.Collator(),
        )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_added_up_in_float32(dtype):
    z, teacher = (logits(seed).to(dtype) for seed in (6, 7))
    teacher[0, 1] = -math.inf  # a word that the teacher rules out, and that was not drawn
    y = torch.tensor([0, 3, 1])
    for baseline in ("mean", "none"):
        loss = kd.SampledReverseKL(baseline)
        value, slope = gradient(lambda z, o=loss: o(z, teacher, y), z)
        wide, exact = gradient(lambda z, o=loss: o(z, teacher.double(), y), z.double())
        assert value.item() == pytest.approx(wide.item(), rel=1e-3)
        assert torch.allclose(slope.double(), exact, atol=1e-2) and slope.isfinite().all()
