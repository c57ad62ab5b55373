"""Batches of ragged rows on either side, and packed documents: each text gives what it gives
alone."""

import copy

import pytest
import torch
import transformers as hf
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import BLOOM, OPT, TWO_LAYERS, TWO_LAYERS_GPT2
from trainers import arguments
from transformers import DataCollatorWithFlattening

import kdlab as kd
from kdlab.data.rows import laid_out, padded_right, unpacked
from kdlab.training.trainer import DistillationTrainer

V = TWO_LAYERS["vocab_size"]
LANGUAGE = {
    "Llama": (hf.LlamaForCausalLM, hf.LlamaConfig(**TWO_LAYERS)),
    "Qwen2, sliding": (
        hf.Qwen2ForCausalLM,
        hf.Qwen2Config(
            sliding_window=3,
            use_sliding_window=True,
            num_key_value_heads=1,
            layer_types=["full_attention", "sliding_attention"],
            **TWO_LAYERS,
        ),
    ),
    "GPT-2": (hf.GPT2LMHeadModel, hf.GPT2Config(**TWO_LAYERS_GPT2)),
    "GPT-NeoX": (hf.GPTNeoXForCausalLM, hf.GPTNeoXConfig(**TWO_LAYERS, max_position_embeddings=32)),
    "OPT": OPT,
    "BLOOM": BLOOM,
}
lengths = st.lists(st.integers(2, 8), min_size=1, max_size=5)


def build(kind, seed):
    make, config = LANGUAGE[kind]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return make(copy.deepcopy(config)).double().eval()


def rows_of(lengths, seed=0):
    g = torch.Generator().manual_seed(seed)
    rows = []
    for n in lengths:
        ids = torch.randint(3, V, (n,), generator=g).tolist()
        prompt = int(torch.randint(0, n, (1,), generator=g))
        rows.append({"input_ids": ids, "labels": [-100] * prompt + ids[prompt:]})
    return rows


def alone(student, teacher, rows):
    """Σ KL(teacher ‖ student) over the labels of each text by itself, and how many there are."""
    total, count = 0.0, 0
    for row in rows:
        ids = torch.tensor([row["input_ids"]])
        log_q, log_p = (m(ids).logits[0, :-1].log_softmax(-1) for m in (student, teacher))
        keep = torch.tensor(row["labels"])[1:] != -100
        total = total + (log_p.exp() * (log_p - log_q)).sum(-1)[keep].sum()
        count += int(keep.sum())
    return torch.as_tensor(total / max(count, 1)).detach()


def trained(tmp_path, student, teacher, collator, **options):
    return DistillationTrainer(
        student,
        arguments(tmp_path),
        teacher=teacher,
        data_collator=collator,
        objective=kd.TokenLoss(),
        **options,
    )


@pytest.mark.parametrize("cache", [True, False])
@pytest.mark.parametrize("kind", LANGUAGE)
def test_packed_texts_are_read_one_by_one(tmp_path, kind, cache):
    student, teacher = build(kind, 1), build(kind, 2)
    teacher.config.use_cache = cache
    rows = [r | {"labels": r["input_ids"]} for r in rows_of([4, 6, 3, 8])]
    expected = alone(student, teacher, rows)
    trainer = trained(tmp_path, student, teacher, DataCollatorWithFlattening())
    loss, found = trainer.compute_loss(
        student, DataCollatorWithFlattening()(rows, return_tensors="pt"), True
    )
    assert loss.item() == pytest.approx(expected.item(), abs=1e-6)  # BLOOM's places are float32
    assert found["logits"].shape == (1, 21, V)
    one = student(torch.tensor([rows[2]["input_ids"]])).logits[0]
    assert (found["logits"][0, 10:13] - one).abs().max() < 1e-6  # the third text, in its place


@settings(max_examples=30)
@given(
    lengths=lengths,
    kind=st.sampled_from(list(LANGUAGE)),
    how=st.sampled_from(
        [
            {},
            {"return_seq_idx": True},
            {"return_flash_attn_kwargs": True},
            {"position_ids_start": 2},
            {"return_position_ids": False, "return_seq_idx": True},
            {"return_position_ids": False, "return_flash_attn_kwargs": True},
        ]
    ),
)
def test_packed_however_a_collator_says_it(tmp_path_factory, lengths, kind, how):
    student, teacher = build(kind, 1), build(kind, 2)
    rows = rows_of(lengths)
    trainer = trained(tmp_path_factory.mktemp("run"), student, teacher, None)
    packed = DataCollatorWithFlattening(**how)(rows, return_tensors="pt")
    if len(rows) == 1 and how.get("position_ids_start"):
        packed["position_ids"] -= (
            2  # one text is not packed: its positions are what the model is told
        )
    labels = [r | {"labels": [-100] + r["labels"][1:]} for r in rows]
    unlabelled = [all(y == -100 for y in r["labels"]) for r in labels]
    labels = [
        r | {"labels": r["input_ids"]} if u else r for r, u in zip(labels, unlabelled, strict=True)
    ]
    expected = alone(student, teacher, labels)
    assert trainer.compute_loss(student, packed).item() == pytest.approx(expected.item(), abs=1e-6)


@settings(max_examples=40)
@given(lengths=lengths, side=st.sampled_from(["left", "right"]), more=st.integers(0, 3))
def test_a_batch_of_padded_rows_is_its_rows(lengths, side, more):
    rows = rows_of(lengths) + (
        [{"input_ids": [3] * (max(lengths) + more), "labels": [-100] * (max(lengths) + more)}]
        if more
        else []
    )
    batch = kd.Collator(side=side, pad=9)(copy.deepcopy(rows))
    for i, row in enumerate(rows):
        real = batch["attention_mask"][i].bool()
        assert batch["input_ids"][i][real].tolist() == row["input_ids"]
        assert batch["labels"][i][real].tolist() == row["labels"]
        assert (batch["input_ids"][i][~real] == 9).all() and (
            batch["labels"][i][~real] == -100
        ).all()
        assert real.int().diff().abs().sum() <= 1 and (real[0] if side == "right" else real[-1])
    right, back = laid_out(batch)
    assert not (right["attention_mask"][:, 1:] > right["attention_mask"][:, :-1]).any()
    assert torch.equal(
        back(right["labels"]) if side == "left" else right["labels"], batch["labels"]
    )


def test_completion_only_labels_are_kept_and_so_is_an_end_of_text_that_is_the_padding():
    _, tokenizer = kd.language_model("docs_lm")
    end = tokenizer.eos_token_id
    row = {"input_ids": [5, 6, 7, 8, end], "labels": [-100, -100, -100, 8, end]}
    for pad in (None, tokenizer.eos_token):
        tokenizer.pad_token = pad
        batch = kd.Collator(tokenizer)([row, {"input_ids": [9, end], "labels": [-100, end]}])
        assert batch["labels"].tolist() == [row["labels"], [-100, end, -100, -100, -100]]
        assert batch["attention_mask"].sum(1).tolist() == [5, 2]


def test_other_columns_are_padded_or_stacked_by_what_they_hold():
    rows = [
        {
            "input_ids": [5, 6, 7],
            "token_type_ids": [0, 1, 1],
            "label": 2,
            "teacher_logits": [1.0, 2.0],
        },
        {"input_ids": [5], "token_type_ids": [1], "label": 0, "teacher_logits": [3.0, 4.0]},
    ]
    rows = [row | {"text": "a text"} for row in rows]
    batch = kd.Collator(side="left")(rows)
    assert batch["token_type_ids"].tolist() == [[0, 1, 1], [0, 0, 1]] and batch[
        "labels"
    ].tolist() == [2, 0]
    assert batch["teacher_logits"].tolist() == [[1.0, 2.0], [3.0, 4.0]] and "text" not in batch
    of_tokens = kd.Collator()(
        [
            {"input_ids": [5, 6], "teacher_logits": [[1.0], [2.0]]},
            {"input_ids": [5], "teacher_logits": [[3.0]]},
        ]
    )
    assert of_tokens["teacher_logits"].tolist() == [[[1.0], [2.0]], [[3.0], [0.0]]]
    pixels = kd.Collator()([{"pixel_values": torch.zeros(3, 4, 4), "label": 1}] * 2)
    assert pixels["pixel_values"].shape == (2, 3, 4, 4) and pixels["labels"].tolist() == [1, 1]


@pytest.mark.parametrize(
    "rows, error, says",
    [
        ([], ValueError, "rows must hold at least one row, got none"),
        ([3], TypeError, "rows must be dictionaries, got int as row 0"),
        (
            [{"input_ids": [1]}, {"input_ids": [1], "labels": [1]}],
            ValueError,
            "same columns.*in row 1",
        ),
        (
            [{"input_ids": [1], "label": "positive"}],
            TypeError,
            "labels must be numbers, got the text 'positive' in row 0",
        ),
        (
            [{"input_ids": [1], "labels": 1}, {"input_ids": [1], "labels": None}],
            TypeError,
            "got None in row 1",
        ),
        (
            [{"input_ids": [1, 2], "labels": [1]}, {"input_ids": [1, 2, 3], "labels": [1, 2]}],
            ValueError,
            "labels must be one entry a token.*got \\(1,\\) in row 0 and \\(2,\\) in row 1",
        ),
        ([{"input_ids": ["a", "b"]}], TypeError, "input_ids must be numbers in every row"),
    ],
)
def test_rows_that_make_no_batch_are_named(rows, error, says):
    with pytest.raises(error, match="Collator: .*" + says):
        kd.Collator()(rows)


@pytest.mark.parametrize(
    "options, says",
    [
        ({"side": "middle"}, "side must be"),
        ({"pad": -1}, "pad must be"),
        ({"pad": "x"}, "pad must be"),
    ],
)
def test_a_collator_that_cannot_pad_is_refused(options, says):
    with pytest.raises(ValueError, match=says):
        kd.Collator(**options)


def test_a_batch_that_holds_no_packed_texts_is_left_alone():
    plain = {
        "input_ids": torch.ones(2, 3, dtype=torch.long),
        "attention_mask": torch.tensor([[1, 1, 1], [1, 1, 0]]),
    }
    for batch in (
        plain,
        plain | {"position_ids": torch.arange(3).expand(2, 3)},
        {"pixel_values": torch.zeros(2, 3)},
        {"input_ids": torch.ones(2, 3), "labels": torch.ones(2, 3)},
    ):
        assert unpacked(batch) == (batch, None) and padded_right(batch) == (batch, None)


def test_columns_of_a_row_follow_its_documents():
    packed = {
        "input_ids": torch.tensor([[5, 6, 7, 8], [9, 5, 6, 0]]),
        "topic": torch.tensor([1, 2]),
        "position_ids": torch.tensor([[0, 1, 0, 1], [0, 1, 2, 0]]),
        "attention_mask": torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]]),
    }
    found, back = unpacked(packed)
    assert found["input_ids"].tolist() == [[5, 6, 0], [7, 8, 0], [9, 5, 6]] and found[
        "topic"
    ].tolist() == [1, 1, 2]
    assert "position_ids" not in found and torch.equal(
        back(found["input_ids"]), packed["input_ids"]
    )


@pytest.mark.parametrize(
    "options, says",
    [
        ({"side": ""}, "side must be one of"),
        ({"side": 0}, "side must be one of"),
        ({"pad": True}, "pad must be"),
        ({"pad": 0.0}, "pad must be"),
        ({"label": ""}, "label must not be empty"),
        ({"label": 1}, "label must be a string"),
        ({"tokenizer": "docs_lm"}, "tokenizer must be one.*, got 'docs_lm'"),
        ({"tokenizer": dict}, "tokenizer must be"),
    ],
)
def test_what_would_be_passed_over_in_silence_is_refused(options, says):
    with pytest.raises((TypeError, ValueError), match="^Collator: " + says):
        kd.Collator(**options)
