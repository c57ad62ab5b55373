"""Wrapped or not, on either side, padded anyhow: the same loss and gradients as the bare model, one
row at a time."""

import copy

import pytest
import torch
import torch.nn.functional as F
import transformers as hf
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import BLOOM, OPT, TWO_LAYERS, TWO_LAYERS_GPT2
from torch import nn
from trainers import arguments

import kdlab as kd
from kdlab.base.wrapped import inside, takes
from kdlab.training.trainer import DistillationTrainer

V = TWO_LAYERS["vocab_size"]
SIZES = TWO_LAYERS | {
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "num_labels": 3,
    "pad_token_id": 0,
}
KINDS = {  # how to build it, and a linear layer for LoRA
    "BERT on pairs": (hf.BertForSequenceClassification, hf.BertConfig(**SIZES), "query"),
    "RoBERTa": (
        hf.RobertaForSequenceClassification,
        hf.RobertaConfig(**SIZES | {"pad_token_id": 1}),
        "query",
    ),
    "GPT-2": (hf.GPT2LMHeadModel, hf.GPT2Config(n_positions=32, **TWO_LAYERS_GPT2), "c_attn"),
    "Llama": (hf.LlamaForCausalLM, hf.LlamaConfig(**SIZES), "q_proj"),
    "OPT": (*OPT, "q_proj"),
    "BLOOM": (*BLOOM, "query_key_value"),
}


class Around(nn.Module):
    """A module of one's own that passes everything on by name."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, **columns):
        return self.model(**columns)


def lora(model, kind, task=None):
    from peft import LoraConfig, get_peft_model

    wrapped = get_peft_model(model, LoraConfig(task_type=task, target_modules=[KINDS[kind][2]]))
    for p in wrapped.parameters():
        p.requires_grad_(True)  # so that the base's gradients can be compared
    return wrapped


WRAPPERS = {
    "bare": lambda m, kind: m,
    "LoRA": lora,  # fresh: B is 0, so it is the same function as its base
    "LoRA by task": lambda m, kind: lora(m, kind, "CAUSAL_LM" if m.can_generate() else "SEQ_CLS"),
    "compiled": lambda m, kind: torch.compile(m, backend="eager"),
    "a module around it": lambda m, kind: Around(m),
    "two around it": lambda m, kind: Around(nn.DataParallel(Around(m))),
}


def build(kind, seed):
    make, config, _ = KINDS[kind]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return make(copy.deepcopy(config)).double().eval()


def rows_of(kind, lengths, seed=0):
    g = torch.Generator().manual_seed(seed)
    found = []
    for n in lengths:
        ids = torch.randint(3, V, (n,), generator=g).tolist()
        if KINDS[kind][0].__name__.endswith("LM") or "LMHead" in KINDS[kind][0].__name__:
            found.append({"input_ids": ids, "labels": ids})
        else:
            row = {"input_ids": ids, "labels": int(torch.randint(3, (1,), generator=g))}
            second = (
                {"token_type_ids": [0] * (n // 2) + [1] * (n - n // 2)}
                if kind == "BERT on pairs"
                else {}
            )
            found.append(row | second)
    return found


def reference(student, teacher, rows):
    """The mean KL(teacher ‖ student) over what counts, each row alone and unpadded, in plain
    torch."""
    total, count = 0.0, 0
    for row in rows:
        inputs = {k: torch.tensor([v]) for k, v in row.items() if k != "labels"}
        z, p = student(**inputs).logits[0], teacher(**inputs).logits[0].detach()
        if isinstance(row["labels"], list):
            z, p = z[:-1], p[:-1]
        z, p = z.reshape(-1, z.shape[-1]), p.reshape(-1, z.shape[-1])
        total, count = (
            total
            + F.kl_div(z.log_softmax(-1), p.log_softmax(-1), reduction="sum", log_target=True),
            count + len(z),
        )
    return total / count


def objective_of(kind):
    return (
        kd.TokenLoss() if "LM" in KINDS[kind][0].__name__ else kd.KDLoss(temperature=1.0, alpha=1.0)
    )


def compare(tmp_path, kind, wrap_student, wrap_teacher, lengths, side):
    student, teacher = build(kind, 1), build(kind, 2)
    expected = reference(student, teacher, rows_of(kind, lengths))
    names, params = zip(*student.named_parameters(), strict=True)
    gradients = torch.autograd.grad(expected, params, allow_unused=True)
    pad = student.config.pad_token_id or 0
    wrapped = [WRAPPERS[w](m, kind) for w, m in ((wrap_student, student), (wrap_teacher, teacher))]
    trainer = DistillationTrainer(
        wrapped[0],
        arguments(tmp_path, remove_unused_columns=False),
        teacher=wrapped[1],
        objective=objective_of(kind),
    )
    loss = trainer.compute_loss(
        trainer.model, kd.Collator(side=side, pad=pad)(rows_of(kind, lengths))
    )
    assert loss.item() == pytest.approx(expected.item(), abs=1e-9)
    loss.backward()
    for name, p, g in zip(names, params, gradients, strict=True):
        if g is not None and not (
            wrap_student == "LoRA by task" and "classifier" in name
        ):  # its copy learns there
            assert (p.grad - g).abs().max() < 1e-9, name


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_a_wrapped_student_and_a_wrapped_teacher_are_what_they_are_bare(
    tmp_path, wrapper, kind, side
):
    if wrapper == "compiled" and kind not in ("BERT on pairs", "GPT-2"):
        pytest.skip("two architectures compiled are enough, each takes seconds")
    compare(tmp_path, kind, wrapper, "bare", [5, 3, 7], side)
    compare(tmp_path, kind, "bare", wrapper, [5, 3, 7], side)


@settings(max_examples=25)
@given(
    kind=st.sampled_from(["BERT on pairs", "GPT-2", "Llama"]),
    side=st.sampled_from(["left", "right"]),
    student=st.sampled_from(["bare", "LoRA", "LoRA by task", "two around it"]),
    teacher=st.sampled_from(["bare", "LoRA", "LoRA by task", "two around it"]),
    lengths=st.lists(st.integers(2, 9), min_size=1, max_size=4),
)
def test_any_wrapper_on_either_side_with_any_padding(
    tmp_path_factory, kind, side, student, teacher, lengths
):
    compare(tmp_path_factory.mktemp("run"), kind, student, teacher, lengths, side)


def test_columns_of_a_data_set_reach_a_wrapped_model(tmp_path):
    from datasets import Dataset

    rows = rows_of("BERT on pairs", [6, 6, 6, 6])
    for wrapper in ("bare", "LoRA", "a module around it"):
        student = WRAPPERS[wrapper](build("BERT on pairs", 1), "BERT on pairs")
        trainer = DistillationTrainer(
            student,
            arguments(tmp_path),
            teacher=build("BERT on pairs", 2),
            train_dataset=Dataset.from_list(rows),
        )
        assert "token_type_ids" in next(iter(trainer.get_train_dataloader())), wrapper


def test_a_forward_that_names_nothing_at_all_is_refused_where_columns_would_be_dropped(tmp_path):
    class Anything(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Embedding(V, 3)

        def forward(self, **columns):
            return self.table(columns["input_ids"]).mean(1)

    assert takes(Anything()) is None
    with pytest.raises(ValueError, match="remove_unused_columns=False"):
        DistillationTrainer(build("BERT on pairs", 1), arguments(tmp_path), teacher=Anything())
    trainer = DistillationTrainer(
        build("BERT on pairs", 1),
        arguments(tmp_path, remove_unused_columns=False),
        teacher=Anything().double(),
        objective=kd.KDLoss(alpha=1.0),
    )
    assert (
        trainer.compute_loss(trainer.model, kd.Collator()(rows_of("BERT on pairs", [4, 4]))).item()
        > 0
    )


def test_what_a_compiled_model_cannot_do_is_refused_in_words(tmp_path):
    student, teacher = build("BERT on pairs", 1), build("BERT on pairs", 2)
    with pytest.raises(ValueError, match="hidden: argument must be None for a compiled model"):
        DistillationTrainer(
            torch.compile(student, backend="eager"),
            arguments(tmp_path),
            teacher=teacher,
            hidden=kd.LayerMap([(0, 1)]),
        )
    llamas = build("Llama", 1), build("Llama", 2)
    with pytest.raises(ValueError, match="fused: argument must be False or 'auto'.*not compiled"):
        DistillationTrainer(
            llamas[0],
            arguments(tmp_path),
            teacher=torch.compile(llamas[1], backend="eager"),
            fused=True,
        )


def test_evaluation_of_a_wrapped_student_has_a_loss(tmp_path):
    rows = rows_of("Llama", [5, 5])
    found = []
    for wrapper in ("bare", "a module around it"):
        student = WRAPPERS[wrapper](build("Llama", 1), "Llama")
        trainer = DistillationTrainer(
            student, arguments(tmp_path), teacher=build("Llama", 2), eval_dataset=rows
        )
        found.append(trainer.evaluate()["eval_loss"])
    assert found[0] == pytest.approx(found[1], abs=1e-7) and found[0] > 0


def test_the_model_inside_is_found():
    bert = build("BERT on pairs", 1)
    for wrapper in WRAPPERS.values():
        assert inside(wrapper(bert, "BERT on pairs")) is bert
    assert inside(nn.Linear(2, 2)).in_features == 2
