"""A teacher with a prompt of its own: its answers to a text's tokens, wherever padding stands."""

import pytest
import torch
from trainers import arguments
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

import kdlab as kd

PROMPT = [7, 8, 5]


def llama(seed=0, **options):
    torch.manual_seed(seed)
    sizes = dict(vocab_size=16, hidden_size=16, num_attention_heads=2, num_hidden_layers=2)
    config = LlamaConfig(**sizes, intermediate_size=32, initializer_range=0.3, **options)
    return LlamaForCausalLM(config).eval()


def gpt2():
    torch.manual_seed(1)
    sizes = dict(vocab_size=16, n_positions=12, n_embd=16, n_layer=2, n_head=2)
    return GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=1, eos_token_id=1)).eval()


@pytest.mark.parametrize("make", [llama, gpt2])
@pytest.mark.parametrize("side", ["left", "right", None])
def test_each_text_is_answered_as_alone_behind_the_prompt(make, side):
    model = make()
    texts = [[3, 4, 5, 6], [9, 3]] if side else [[3, 4, 5, 6], [9, 3, 2, 2]]
    batch = kd.Collator(side=side or "right")([{"input_ids": torch.tensor(t)} for t in texts])
    given = batch if side else {"input_ids": batch["input_ids"]}
    with torch.no_grad():
        found = kd.Prompted(model, PROMPT)(**given).logits
        assert found.shape == (2, 4, 16)
        for row, mask, text in zip(found, batch["attention_mask"], texts, strict=True):
            alone = model(torch.tensor([PROMPT + text])).logits[0, len(PROMPT) :]
            assert torch.allclose(row[mask.bool()], alone, atol=1e-5)


def test_the_prompt_stands_behind_a_text_s_beginning():
    model = llama(bos_token_id=1)
    with torch.no_grad():
        found = kd.Prompted(model, PROMPT)(torch.tensor([[1, 3, 4], [3, 4, 5]])).logits
        begun = model(torch.tensor([[1, *PROMPT, 3, 4]])).logits[0, len(PROMPT) :]
        bare = model(torch.tensor([[*PROMPT, 3, 4, 5]])).logits[0, len(PROMPT) :]
        assert torch.allclose(found, torch.stack([begun, bare]), atol=1e-5)
        own = kd.Prompted(model, [1, *PROMPT])(torch.tensor([[1, 3]])).logits
        both = model(torch.tensor([[1, *PROMPT, 1, 3]])).logits[:, len(PROMPT) + 1 :]
        assert torch.allclose(own, both, atol=1e-5)


def test_a_model_teaches_itself_what_it_does_when_it_is_told(tmp_path):
    """With an adapter on and off, and on text of its own."""
    peft = pytest.importorskip("peft", reason="no peft: pip install 'kdlab[scale]'")
    config = peft.LoraConfig(r=8, target_modules=["q_proj", "v_proj", "down_proj", "lm_head"])
    student = peft.get_peft_model(llama(), config)
    teacher = kd.Prompted(kd.WithoutAdapter(student), PROMPT)
    texts = torch.randint(0, 16, (32, 6), generator=torch.Generator().manual_seed(0))

    def apart():
        with torch.no_grad():
            return kd.forward_kl(student.eval()(texts).logits, teacher(texts).logits).item()

    before = apart()
    kd.DistillationTrainer(
        student,
        arguments(tmp_path, 16, max_steps=60, learning_rate=1e-2, optim="adamw_torch"),
        teacher=teacher,
        train_dataset=[{"input_ids": t, "labels": t} for t in texts],
        data_collator=kd.Collator(),
        on_policy=kd.OnPolicy(0.5, max_new_tokens=4, prompt_length=2, eos=(), pad=0),
    ).train()
    assert apart() < 0.6 * before


def test_a_text_has_fewer_positions():
    teacher = kd.Prompted(gpt2(), PROMPT)
    assert teacher.config.max_position_embeddings == 9 and gpt2().config.n_positions == 12
    teacher(torch.zeros(1, 9, dtype=torch.long))


@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        ([], "at least one"),
        ([16], r"ids in \[0, 16\), got 16 to 16"),
        ([-1], "ids in"),
        ([0.5], "token ids"),
        ([[1, 2]], "token ids"),
        ("a prompt", "token ids"),
        ([3] * 12, "leave room within the teacher's 12 positions"),
    ],
)
def test_what_is_no_prompt_is_told(prompt, said):
    with pytest.raises((TypeError, ValueError), match=said):
        kd.Prompted(gpt2(), prompt)


def test_what_is_no_language_model_is_told():
    with pytest.raises(TypeError, match="Prompted: teacher must be a causal language model"):
        kd.Prompted(torch.nn.Linear(2, 2), [1])
