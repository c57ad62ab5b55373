"""A LoRA student taught by its own base: one model, its adapter on and off."""

import copy

import pytest
import torch
from trainers import arguments
from transformers import LlamaConfig, LlamaForCausalLM

import kdlab as kd

peft = pytest.importorskip("peft", reason="no peft: pip install 'kdlab[scale]'")
IDS = torch.randint(0, 16, (16, 10), generator=torch.Generator().manual_seed(0))


def student(dropout=0.0, seed=0):
    torch.manual_seed(seed)
    sizes = dict(vocab_size=16, hidden_size=16, num_attention_heads=2, num_hidden_layers=2)
    base = LlamaForCausalLM(LlamaConfig(**sizes, intermediate_size=32))
    config = peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"], lora_dropout=dropout)
    return peft.get_peft_model(base, config)


def moved(model):
    """The same with an adapter that has learnt something."""
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.5)
    return model


def trained(model, tmp_path, alpha=1.0, prompt=(), own=None, **options):
    how = dict(max_steps=20, learning_rate=1e-2, optim="adamw_torch") | options
    base = kd.WithoutAdapter(model)
    trainer = kd.DistillationTrainer(
        model,
        arguments(tmp_path, 8, **how),
        teacher=kd.Prompted(base, list(prompt)) if prompt else base,
        objective=kd.TokenLoss(alpha=alpha),
        train_dataset=[{"input_ids": row, "labels": row} for row in IDS],
        data_collator=kd.Collator(),
        on_policy=own,
    )
    trainer.train()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def test_it_answers_as_the_base_does_and_leaves_the_student_as_it_was():
    model = moved(student(dropout=0.5)).train()
    base = copy.deepcopy(model).unload().eval()
    modes = [m.training for m in model.modules()]
    learns = [p.requires_grad for p in model.parameters()]
    teacher = kd.WithoutAdapter(model).requires_grad_(False).eval()
    answer = teacher(IDS).logits
    with torch.no_grad():
        assert torch.equal(answer, base(IDS).logits)
        assert not torch.allclose(answer, model.eval()(IDS).logits)
        model.train()
    assert not answer.requires_grad and list(teacher.modules()) == [teacher]
    assert [m.training for m in model.modules()] == modes
    assert [p.requires_grad for p in model.parameters()] == learns


@pytest.mark.parametrize("bf16", [False, True])
def test_a_student_that_strayed_is_led_back_to_its_base(bf16, tmp_path):
    model = moved(student())
    base = copy.deepcopy(model).unload().eval()
    before = {n: p.clone() for n, p in model.named_parameters() if not p.requires_grad}

    def apart():  # of the tokens that are predicted
        with torch.no_grad():
            student, teacher = (m.eval()(IDS).logits[:, :-1] for m in (model, base))
        return kd.forward_kl(student, teacher).item()

    first = apart()
    losses = trained(model, tmp_path, bf16=bf16)
    # two batches hold all rows: their mean is near the first batch's, before any step
    assert losses[0] == pytest.approx(first, rel=0.3) and apart() < 0.7 * first
    assert all(torch.equal(dict(model.named_parameters())[n], p) for n, p in before.items())


RECOMPUTED = {
    "gradient_checkpointing": True,
    "gradient_checkpointing_kwargs": {"use_reentrant": False},
}


def test_recomputed_activations_change_nothing(tmp_path):
    kept = trained(moved(student()), tmp_path)
    again = trained(moved(student()), tmp_path, **RECOMPUTED)
    assert again == pytest.approx(kept, rel=1e-4)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_half_precision_recomputed_and_the_base_told_more_together(share, tmp_path):
    """On given text and on the student's own: the first losses are those of the plain run."""

    def losses(**options):
        own = kd.OnPolicy(share, max_new_tokens=4, prompt_length=4, eos=(), pad=0)
        told = {"prompt": [3, 4], "own": own} | options
        return trained(moved(student()), tmp_path, max_steps=2, **told)

    plain = losses()
    assert losses(**RECOMPUTED) == pytest.approx(plain, rel=1e-4)
    assert losses(bf16=True, **RECOMPUTED)[0] == pytest.approx(plain[0], rel=0.05)
    assert losses(prompt=[9, 9])[0] != pytest.approx(plain[0], rel=0.01)  # what it is told counts


def test_an_adapter_that_adds_nothing_has_nothing_to_learn(tmp_path):
    assert trained(student(), tmp_path)[0] < 1e-9  # later steps follow its rounding


@pytest.mark.parametrize("wrong", [torch.nn.Linear(2, 2), None, "student"])
def test_what_has_no_adapter_is_told(wrong):
    with pytest.raises(TypeError, match="WithoutAdapter: student must be a model of peft"):
        kd.WithoutAdapter(wrong)
