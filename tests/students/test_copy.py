"""Students made of a teacher's blocks."""

import copy
from pathlib import Path

import pytest
import torch
from tiny_models import FAMILIES, IDS, SLIDING, build
from torch import nn
from transformers import AutoModelForCausalLM

import kdlab as kd
from kdlab.students.copy import student_from


def answer(model, ids):
    with torch.no_grad():
        return model(ids)[0]


@pytest.fixture(params=FAMILIES)
def family(request):
    return request.param


def test_all_blocks_make_the_teacher_again(family):
    teacher = build(family)
    student = student_from(teacher, range(4))
    torch.testing.assert_close(answer(student, IDS), answer(teacher, IDS), rtol=0, atol=0)


@pytest.mark.parametrize("training", [False, True])
def test_a_student_is_read_without_dropout_until_it_is_trained(family, training):
    teacher = build(family).train(training)
    student = kd.student_from(teacher, every=2)
    assert not any(module.training for module in student.modules())
    assert all(module.training == training for module in teacher.modules())
    torch.testing.assert_close(answer(student, IDS), answer(student, IDS), rtol=0, atol=0)
    if family == "BERT":
        seen = []
        student.register_forward_pre_hook(lambda module, _: seen.append(module.training))
        rows = [{"input_ids": row, "labels": i % 2} for i, row in enumerate(IDS.tolist())]
        kd.fit(student, rows, objective=kd.HardLabels(), steps=2)
        assert seen == [True, True] and not student.training


@pytest.mark.parametrize("layers", [[0, 2], [1], [3, 0, 1]])
def test_chosen_blocks_answer_as_if_cut_out_of_the_teacher(family, layers):
    teacher = build(family)
    student = student_from(teacher, layers)
    cut, stack = copy.deepcopy(teacher), FAMILIES[family][2]
    blocks = cut.get_submodule(stack)
    parent, _, last = stack.rpartition(".")
    setattr(cut.get_submodule(parent), last, nn.ModuleList([blocks[i] for i in layers]))
    if family == "Qwen2":
        cut.config.layer_types = [SLIDING[i] for i in layers]
        assert student.config.layer_types == cut.config.layer_types
    cut.config.use_cache = False  # its blocks still carry the teacher's indices
    torch.testing.assert_close(answer(student, IDS), answer(cut, IDS), rtol=0, atol=0)
    assert student.config.num_hidden_layers == len(student.get_submodule(stack)) == len(layers)
    assert teacher.config.num_hidden_layers == 4 and type(student) is type(teacher)


def test_every_takes_from_the_first():
    teacher = build("BERT")
    for every, kept in [(1, [0, 1, 2, 3]), (2, [0, 2]), (3, [0, 3]), (9, [0])]:
        student = student_from(teacher, every=every)
        torch.testing.assert_close(answer(student, IDS), answer(student_from(teacher, kept), IDS))
        assert student.config.num_hidden_layers == len(kept)


def test_nothing_is_shared_and_everything_learns(family):
    teacher = build(family).requires_grad_(False)
    before = copy.deepcopy(teacher.state_dict())
    student = student_from(teacher, [1, 3])
    theirs = {x.untyped_storage().data_ptr() for x in [*teacher.parameters(), *teacher.buffers()]}
    assert not theirs & {
        x.untyped_storage().data_ptr() for x in [*student.parameters(), *student.buffers()]
    }
    assert all(p.requires_grad for p in student.parameters())
    optimiser = torch.optim.SGD(student.parameters(), 0.1)
    student(IDS)[0].square().sum().backward()
    optimiser.step()
    torch.testing.assert_close(teacher.state_dict(), before, rtol=0, atol=0)
    assert (
        all(p.grad is None for p in teacher.parameters()) and student.config is not teacher.config
    )


def test_dtypes_attention_and_the_generator_are_kept():
    teacher = build("Llama", _attn_implementation="eager").to(torch.bfloat16)
    teacher.model.norm.float()  # as from_pretrained leaves some parts of some models
    teacher.model.rotary_emb.inv_freq.data = teacher.model.rotary_emb.inv_freq.float() * 0.5
    state = torch.get_rng_state()
    student = student_from(teacher, every=2)
    assert torch.equal(torch.get_rng_state(), state)
    assert (
        student.lm_head.weight.dtype == torch.bfloat16
        and student.model.norm.weight.dtype == torch.float32
    )
    assert student.lm_head.weight is student.model.embed_tokens.weight
    torch.testing.assert_close(
        student.model.rotary_emb.inv_freq, teacher.model.rotary_emb.inv_freq, rtol=0, atol=0
    )
    assert student.config._attn_implementation == "eager"


@pytest.mark.parametrize("layers", [[0, 2], [2, 1]])
def test_a_language_model_generates_with_its_cache(layers):
    teacher = AutoModelForCausalLM.from_pretrained(
        Path(__file__).parents[2] / "data" / "teachers" / "topics_lm"
    )
    teacher.generation_config.repetition_penalty = 1.5
    student = student_from(teacher, layers)
    assert [block.self_attn.layer_idx for block in student.model.layers] == [0, 1]
    assert student.generation_config.repetition_penalty == 1.5
    assert student.generation_config is not teacher.generation_config
    options = dict(
        max_new_tokens=6, do_sample=False, pad_token_id=0, attention_mask=torch.ones(2, 8)
    )
    ids = torch.randint(5, 500, (2, 8), generator=torch.Generator().manual_seed(0))
    with_cache, without = (
        student.generate(ids, use_cache=cache, **options) for cache in (True, False)
    )
    assert torch.equal(with_cache, without) and with_cache.shape == (2, 14)


@pytest.mark.parametrize(
    "layers, says",
    [
        ([], r"a list of blocks from 0 to 3, got \[\]"),
        (2, "a list of blocks from 0 to 3, got 2"),
        ("01", "a list of blocks from 0 to 3, got '01'"),
        ([0, 0], r"different blocks, got \[0, 0\]"),
        *[
            ([0, wrong], rf"a whole number in \[0, 3\], got {wrong}")
            for wrong in (4, -1, 0.5, 2.0, True, None)
        ],
    ],
)
def test_blocks_that_the_teacher_lacks(layers, says):
    with pytest.raises(ValueError, match=f"^student_from: layers must be {says}"):
        student_from(build("BERT"), layers)


def test_other_bad_requests():
    teacher = build("BERT")
    for options, words in [
        ({}, "expected either layers or every"),
        (dict(layers=[0], every=2), "either"),
        (dict(every=0), "every must be a whole number of at least 1, got 0"),
        (dict(every=True), "every must be a whole number of at least 1, got True"),
        (dict(every=1.5), "every must be"),
    ]:
        with pytest.raises(ValueError, match=words):
            student_from(teacher, **options)
    with pytest.raises(TypeError, match="teacher must be a model of transformers .* got Linear"):
        student_from(nn.Linear(2, 2), [0])
    for block in teacher.bert.encoder.layer:
        block.experts = nn.ModuleList(
            nn.Linear(1, 1) for _ in range(4)
        )  # a list within a block is no stack
    assert student_from(teacher, [0]).config.num_hidden_layers == 1
    teacher.other = nn.ModuleList(nn.Linear(1, 1) for _ in range(4))
    with pytest.raises(
        ValueError, match=r"one stack of 4 blocks, got \['bert.encoder.layer', 'other'\]"
    ):
        student_from(teacher, [0])
