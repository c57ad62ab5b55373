"""TinyBERT's and MiniLM's losses, against the papers' formulas in plain loops."""

import math

import numpy as np
import pytest
import torch
from tiny_models import DECODERS, ENCODERS, IDS, build
from torch import nn

import kdlab as kd
from kdlab.losses.encoders import LayerMap, Relations, find_encoder
from kdlab.losses.hidden import tap
from kdlab.students.copy import student_from

MASK = torch.tensor([[1] * 9, [1] * 5 + [0] * 4, [0] * 2 + [1] * 7])
NARROW = "DistilBERT", dict(dim=8, n_heads=4, n_layers=2)


def gathered(loss, student, teacher, ids=IDS, mask=MASK):
    with loss.collect(student, "student") as mine, loss.collect(teacher, "teacher") as theirs:
        student(ids, attention_mask=mask)
        with torch.no_grad():
            teacher(ids, attention_mask=mask)
    return mine, theirs


def rows(loss, student, teacher, ids=IDS, mask=MASK):
    return loss(*gathered(loss, student, teacher, ids, mask), mask)


def prepared(loss, student, teacher, **options):
    loss.prepare(student, teacher, **options)
    return loss


def parts(model, block, ids=IDS, mask=MASK):
    """A block's queries, keys, values and output and the embeddings, in numpy from the weights: (B,
    L, H) each."""
    with torch.no_grad():
        hidden = model(ids, attention_mask=mask, output_hidden_states=True).hidden_states
    modules, encoder = dict(model.named_modules()), find_encoder("test", model)
    before, found = hidden[block].double().numpy(), {}
    for part in ("query", "key", "value"):
        linear = modules[encoder.name(part, block)]
        found[part] = (
            before @ linear.weight.detach().double().numpy().T
            + linear.bias.detach().double().numpy()
        )
    return found | {
        "hidden": hidden[block + 1].double().numpy(),
        "embedding": hidden[0].double().numpy(),
    }


def dot(x, y, head, heads, i, j):
    d = x.shape[-1] // heads
    cut = slice(head * d, head * d + d)
    return sum(a * b for a, b in zip(x[i, cut], y[j, cut], strict=True)) / math.sqrt(d)


def tinybert_by_hand(loss, student, teacher):
    w = {key: p.weight.detach().double().numpy() for key, p in loss.projectors.items()}
    result = []
    for b in range(len(IDS)):
        real, total = [i for i in range(9) if MASK[b, i]], 0.0
        for n, (s, t) in enumerate(loss.pairs):
            S, T = (
                {k: x[b] for k, x in parts(*end).items()} for end in [(student, s), (teacher, t)]
            )
            squares = [
                np.mean(
                    [
                        (
                            dot(S["query"], S["key"], h, 3, i, j)
                            - dot(T["query"], T["key"], h, 3, i, j)
                        )
                        ** 2
                        for i in real
                        for j in real
                    ]
                )
                for h in range(3)
            ]
            total += loss.weights["attention"] * sum(squares) / 3
            for part in [
                part for part in ["hidden"] + ["embedding"] * (n == 0) if loss.weights[part]
            ]:
                gaps = [
                    (w[part] @ S[part][i] if part in w else S[part][i]) - T[part][i] for i in real
                ]
                total += loss.weights[part] * np.mean([g**2 for gap in gaps for g in gap])
        result.append(total)
    return result


@pytest.mark.parametrize(
    "weights",
    [
        {},
        dict(hidden=0.0),
        dict(attention=2.0, hidden=0.5, embedding=3.0),
        dict(attention=0.0, embedding=0.0),
        dict(embedding=0.0, hidden=0.0),
    ],
)
def test_layer_map_is_the_papers_sum(weights):
    teacher, student = build("BERT"), build("BERT", 5, hidden_size=6, num_hidden_layers=2)
    loss = prepared(LayerMap([(0, 1), (1, 3)], **weights), student, teacher)
    torch.testing.assert_close(
        rows(loss, student, teacher).tolist(),
        tinybert_by_hand(loss, student, teacher),
        rtol=1e-4,
        atol=1e-5,
    )
    assert set(loss.projectors) == {key for key in ("hidden", "embedding") if loss.weights[key]}


def test_layer_map_across_families_and_without_projectors():
    teacher = build("BERT")
    for student, options in [
        (build("DistilBERT", 3), {}),
        (build("DistilBERT", 3, n_heads=4), dict(attention=0)),
        (build("ELECTRA", 3, embedding_size=12), dict(project=False)),
    ]:
        loss = prepared(LayerMap([(2, 0), (3, 0), (2, 1)], **options), student, teacher)
        torch.testing.assert_close(
            rows(loss, student, teacher).tolist(),
            tinybert_by_hand(loss, student, teacher),
            rtol=1e-4,
            atol=1e-5,
        )
    student = build("ELECTRA", 3)  # its embeddings are narrower than its blocks
    loss = prepared(LayerMap([(0, 0)]), student, teacher)
    assert loss.projectors["embedding"].weight.shape == (12, 8) and loss.projectors[
        "hidden"
    ].weight.shape == (12, 12)
    assert torch.equal(loss.projectors["hidden"].weight, torch.eye(12)) and rows(
        loss, student, teacher
    ).shape == (3,)


def softmax(x):
    e = np.exp(np.array(x) - max(x))
    return e / e.sum()


def minilm_by_hand(loss, heads, student, s, teacher, t):
    result = []
    for b in range(len(IDS)):
        real, total = [i for i in range(9) if MASK[b, i]], 0.0
        S, T = ({k: x[b] for k, x in parts(*end).items()} for end in [(student, s), (teacher, t)])
        for weight, x, y in [
            (loss.weights["query_key"], "query", "key"),
            (loss.weights["value"], "value", "value"),
        ]:
            for h in range(heads):
                for i in real:
                    q, p = (
                        softmax([dot(side[x], side[y], h, heads, i, j) for j in real])
                        for side in (S, T)
                    )
                    total += weight * sum(p * np.log(p / q)) / (heads * len(real))
        result.append(total)
    return result


@pytest.mark.parametrize(
    "student, heads, layers, weights",
    [
        (("BERT", dict(hidden_size=6)), None, (-1, -1), {}),
        (NARROW, 4, (1, -3), dict(query_key=0.5, value=2.0)),
        (NARROW, 1, (-2, 3), dict(query_key=0.0)),
        (("BERT", dict(num_attention_heads=1)), 2, (0, 2), dict(value=0)),
    ],
)
def test_relations_are_the_papers_divergences(student, heads, layers, weights):
    teacher, student = build("RoBERTa"), build(student[0], 5, **student[1])
    loss = prepared(Relations(*layers, heads=heads, **weights), student, teacher)
    blocks = layers[0] % student.config.num_hidden_layers, layers[1] % 4
    expected = minilm_by_hand(loss, heads or 3, student, blocks[0], teacher, blocks[1])
    torch.testing.assert_close(
        rows(loss, student, teacher).tolist(), expected, rtol=1e-4, atol=1e-5
    )


def test_query_key_is_the_divergence_of_the_attention_of_transformers():
    teacher, student = (build("BERT", seed, _attn_implementation="eager") for seed in (0, 1))
    loss = prepared(Relations(1, 2, value=0), student, teacher)
    with torch.no_grad():
        q, p = (
            model(IDS, attention_mask=MASK, output_attentions=True).attentions[i].double()
            for model, i in [(student, 1), (teacher, 2)]
        )
    kl = (torch.xlogy(p, p) - torch.xlogy(p, q)).sum(-1).mean(1)  # padded keys: 0 on both sides
    torch.testing.assert_close(
        rows(loss, student, teacher), ((kl * MASK).sum(1) / MASK.sum(1)).float()
    )


LOSSES = [
    lambda: LayerMap([(0, 0), (3, 3)]),
    lambda: LayerMap([(1, 1)], project=False),
    Relations,
    lambda: Relations(2, 2, heads=4),
]


@pytest.mark.parametrize("make", LOSSES)
@pytest.mark.parametrize("family", ENCODERS)
def test_a_copy_of_the_teacher_has_nothing_to_learn(make, family):
    teacher = build(family)
    student = student_from(teacher, range(4))
    result = rows(prepared(make(), student, teacher), student, teacher)
    assert result.tolist() == [0.0] * 3 and result.requires_grad
    with torch.no_grad():
        for p in student.parameters():
            p.add_(
                torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel())), alpha=0.1
            )
    assert (rows(prepared(make(), student, teacher), student, teacher) > 1e-4).all()


@pytest.mark.parametrize("make", [lambda: LayerMap([(0, 1), (1, 3)]), lambda: Relations(heads=2)])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_the_student_and_the_projectors_learn_and_the_teacher_does_not(make, checkpointing):
    teacher, student = build("BERT"), build("BERT", 5, hidden_size=6, num_hidden_layers=2).train()
    for dropout in [m for m in student.modules() if isinstance(m, nn.Dropout)]:
        dropout.p = 0.0
    loss = prepared(make(), student, teacher)
    if checkpointing:
        student.activation_checkpointing_enable()
    optimiser, losses = torch.optim.Adam([*student.parameters(), *loss.parameters()], 0.02), []
    for _ in range(30):
        with loss.collect(student, "student") as mine, loss.collect(teacher, "teacher") as theirs:
            (
                student(IDS, attention_mask=MASK),
                teacher(IDS, attention_mask=MASK),
            )  # the teacher with its graph
        losses.append(loss(mine, theirs, MASK).mean())
        optimiser.zero_grad()
        losses[-1].backward()
        optimiser.step()
    assert losses[-1] < 0.5 * losses[0]
    assert all(p.grad is None for p in teacher.parameters())
    for part in (
        "embeddings.word_embeddings",
        "encoder.layer.1.attention.self.query",
        "encoder.layer.0.output.dense",
    ):
        assert student.bert.get_submodule(part).weight.grad.abs().sum() > 0
    assert all(p.grad.abs().sum() > 0 for p in loss.parameters())


@pytest.mark.parametrize("make", LOSSES)
def test_gradients_by_finite_differences(make):
    model = build("BERT").double()
    loss, generator = prepared(make(), model, model), torch.Generator().manual_seed(0)
    mask = torch.tensor([[1, 1, 1], [0, 1, 1], [0, 0, 0]])
    mine, theirs = (
        [torch.randn(3, 3, 12, dtype=torch.float64, generator=generator) for _ in side]
        for side in loss.names.values()
    )

    def of(*layers):
        named = [
            dict(zip(side.values(), x, strict=True))
            for side, x in zip(loss.names.values(), (layers, theirs), strict=True)
        ]
        return loss(*named, mask)

    assert torch.autograd.gradcheck(of, [x.requires_grad_() for x in mine])
    assert of(*mine)[2] == 0 and (of(*mine)[:2] > 0).all()


@pytest.mark.parametrize("make", LOSSES)
@pytest.mark.parametrize(
    "family, side", [("BERT", "right"), ("DistilBERT", "right"), ("RoBERTa", "left")]
)
def test_padding_changes_no_row(make, family, side):
    teacher, student = build(family, 0, pad_token_id=1), build(family, 1, pad_token_id=1)
    loss = prepared(make(), student, teacher)
    alone = [
        rows(loss, student, teacher, IDS[i : i + 1, :n], MASK[:1, :n])
        for i, n in enumerate((9, 4, 1))
    ]
    for extra in (0, 3):
        ids, mask = (
            torch.ones(3, 9 + extra, dtype=torch.long),
            torch.zeros(3, 9 + extra, dtype=torch.long),
        )
        for i, n in enumerate((9, 4, 1)):
            place = slice(0, n) if side == "right" else slice(9 + extra - n, None)
            ids[i, place], mask[i, place] = IDS[i, :n], 1
        torch.testing.assert_close(
            rows(loss, student, teacher, ids, mask), torch.cat(alone), rtol=1e-4, atol=1e-6
        )


def test_values_may_turn_within_a_head_and_heads_may_swap_on_both_sides():
    teacher, student = build("BERT", 0), build("BERT", 1)
    loss = prepared(Relations(heads=3), student, teacher)
    (mine, theirs), value = gathered(loss, student, teacher), loss.names["student"]["value", -1]
    before = loss(mine, theirs, MASK)
    assert all(
        (loss({k: x * (1 + i * 1e-7) for k, x in theirs.items()}, theirs, MASK) >= 0).all()
        for i in range(20)
    )
    turn = torch.linalg.qr(torch.randn(4, 4, generator=torch.Generator().manual_seed(0)))[0]
    turned = mine | {value: (mine[value].unflatten(-1, (3, 4)) @ turn).flatten(-2)}
    torch.testing.assert_close(loss(turned, theirs, MASK), before)
    across = mine | {value: mine[value].unflatten(-1, (4, 3)).mT.flatten(-2)}
    assert (loss(across, theirs, MASK) - before).abs().min() > 1e-3
    swapped = [
        {name: x.unflatten(-1, (3, 4)).flip(-2).flatten(-2) for name, x in side.items()}
        for side in (mine, theirs)
    ]
    torch.testing.assert_close(loss(*swapped, MASK), before)
    assert (loss(swapped[0], theirs, MASK) - before).abs().min() > 1e-3


def test_projectors_are_those_of_the_seed_and_no_less_than_float32():
    teacher, student = build("BERT"), build("BERT", 5, hidden_size=6).bfloat16()
    losses = [prepared(LayerMap([(0, 0)]), student, teacher, seed=seed) for seed in (0, 0, 1)]
    first, same, other = (loss.projectors["hidden"].weight for loss in losses)
    assert (
        torch.equal(first, same) and not torch.equal(first, other) and first.dtype == torch.float32
    )
    assert not torch.equal(first, losses[0].projectors["embedding"].weight)
    assert rows(losses[0], student, teacher).dtype == torch.float32
    wide = prepared(LayerMap([(0, 0)]), build("BERT", 5, hidden_size=6).double(), teacher)
    assert wide.projectors["hidden"].weight.dtype == torch.float64
    assert prepared(losses[0], build("BERT", hidden_size=9), teacher).projectors[
        "hidden"
    ].weight.shape == (12, 9)


@pytest.mark.parametrize(
    "make, words",
    [
        *[
            (lambda p=p: LayerMap(p), "LayerMap: pairs must be")
            for p in [[], [1], [(0, 1, 2)], [("0", "1")]]
        ],
        (
            lambda: LayerMap([(0, 0)], hidden=-1),
            "LayerMap: hidden must be a finite number at least 0, got -1",
        ),
        (
            lambda: LayerMap([(0, 0)], 0, 0, 0),
            "LayerMap: one of attention, hidden, embedding must be above 0",
        ),
        (
            lambda: Relations(query_key=math.inf),
            "Relations: query_key must be a finite number at least 0, got inf",
        ),
        (
            lambda: Relations(query_key=0, value=0),
            "Relations: one of query_key, value must be above 0",
        ),
        (
            lambda: Relations(heads=0),
            "Relations: heads must be a whole number of at least 1, got 0",
        ),
        (
            lambda: LayerMap([(0, 1), (2, 3)]),
            r"\(2, 3\)\] name blocks \[2\] of the student, which has 0 to 1",
        ),
        (
            lambda: LayerMap([(0, 4), (1, -1)]),
            r"name blocks \[4, -1\] of the teacher, which has 0 to 3",
        ),
        (
            lambda: LayerMap([(0, 1)]),
            "a student with 4 heads and a teacher with 3; expected equal numbers, or attention=0",
        ),
        (
            lambda: LayerMap([(0, 1)], 1, 0, project=False),
            "hidden .* a student with 8 and a teacher with 12; .* hidden=0",
        ),
        (
            lambda: LayerMap([(0, 1)], attention=0, hidden=0, project=False),
            "embedding compares layers of one width",
        ),
        (lambda: Relations(2), "student_layer must be a block of the student, -2 to 1, got 2"),
        (
            lambda: Relations(-1, -5),
            "teacher_layer must be a block of the teacher, -4 to 3, got -5",
        ),
        (
            lambda: Relations(heads=6),
            r"heads must divide the widths of student \(8\) and teacher \(12\), got 6",
        ),
        (lambda: Relations(heads=8), "heads must divide"),
        (Relations, "heads must divide .* got 3"),
    ],
)
def test_what_does_not_fit(make, words):
    with pytest.raises(ValueError, match=words):
        make().prepare(build(NARROW[0], **NARROW[1]), build("BERT"))


# --- decoders ---

LEFT = torch.tensor([[1] * 9, [1] * 5 + [0] * 4, [1] * 7 + [0] * 2])


def tapped(model, names, mask=LEFT):
    with tap(model, list(names)) as layers, torch.no_grad():
        model(IDS, attention_mask=mask)
    return [layers[name].double().numpy() for name in names]


def thirds(family, x):
    """Queries, keys and values of GPT-2, which stand in a row; else what came."""
    return np.split(x, 3, -1) if family == "GPT-2" else [x] * 3


@pytest.mark.parametrize("family", DECODERS)
def test_relations_of_values_in_a_decoder_look_back_alone(family):
    teacher = build(family)
    student = build(family, 5, num_hidden_layers=2, n_layer=2, layer_types=["full_attention"] * 2)
    loss = prepared(Relations(heads=2, query_key=0), student, teacher)
    found = rows(loss, student, teacher, mask=LEFT)
    end = "attn.c_attn" if family == "GPT-2" else "self_attn.v_proj"
    S, T = (
        thirds(family, tapped(model, [f"{DECODERS[family][2]}.{block}.{end}"])[0])[2]
        for model, block in ((student, 1), (teacher, 3))
    )
    for b in range(3):
        real, total = [i for i in range(9) if LEFT[b, i]], []
        for head in range(2):
            for i in real:
                behind = [j for j in real if j <= i]
                p, q = (np.exp([dot(X[b], X[b], head, 2, i, j) for j in behind]) for X in (T, S))
                p, q = p / p.sum(), q / q.sum()
                total.append((p * np.log(p / q)).sum())
        assert found[b].item() == pytest.approx(np.mean(total), rel=1e-4, abs=1e-6)
    found.sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in student.parameters())


@pytest.mark.parametrize("family", DECODERS)
def test_a_layer_map_of_a_decoder_maps_blocks_and_embeddings(family):
    teacher, student = build(family), build(family, 5)
    loss = prepared(LayerMap([(0, 1), (3, 3)], attention=0.0, project=False), student, teacher)
    found = rows(loss, student, teacher, mask=LEFT)
    blocks = DECODERS[family][2]
    first = "transformer.drop" if family == "GPT-2" else "model.embed_tokens"
    S = tapped(student, [f"{blocks}.0", f"{blocks}.3", first])
    T = tapped(teacher, [f"{blocks}.1", f"{blocks}.3", first])
    real = LEFT.bool().numpy()
    for b in range(3):
        gaps = sum(np.mean((s[b, real[b]] - t[b, real[b]]) ** 2) for s, t in zip(S, T, strict=True))
        assert found[b].item() == pytest.approx(gaps, rel=1e-4)
    same = prepared(LayerMap([(0, 0), (3, 3)], attention=0.0), teacher, build(family))
    assert not rows(same, teacher, build(family), mask=LEFT).any()


def test_the_scores_of_gpt2_are_compared_where_attention_looks():
    teacher, student = build("GPT-2"), build("GPT-2", 5)
    loss = prepared(LayerMap([(1, 2)], hidden=0.0, embedding=0.0), student, teacher)
    found = rows(loss, student, teacher, mask=LEFT)
    S, T = (
        thirds("GPT-2", tapped(model, [f"transformer.h.{block}.attn.c_attn"])[0])
        for model, block in ((student, 1), (teacher, 2))
    )
    for b in range(3):
        real = [i for i in range(9) if LEFT[b, i]]
        squares = [
            (dot(S[0][b], S[1][b], h, 3, i, j) - dot(T[0][b], T[1][b], h, 3, i, j)) ** 2
            for h in range(3)
            for i in real
            for j in real
            if j <= i
        ]
        assert found[b].item() == pytest.approx(np.mean(squares), rel=1e-4)


@pytest.mark.parametrize("family", ["Llama", "Qwen2"])
def test_queries_that_are_rotated_afterwards_are_not_compared(family):
    teacher = build(family)
    for loss, words in (
        (Relations(), "Relations: query_key .*the student rotates.*expected query_key=0"),
        (LayerMap([(0, 0)]), "LayerMap: attention .*the student rotates.*expected attention=0"),
    ):
        with pytest.raises(ValueError, match=f"^{words}"):
            loss.prepare(build(family, 1), teacher)
    with pytest.raises(ValueError, match=r"heads must divide the widths of student \(4\)"):
        Relations(heads=3, query_key=0).prepare(build("Qwen2"), teacher)


def test_a_decoder_learns_its_teacher_s_layers_in_the_trainer():
    teacher, student = build("Llama"), build("Llama", 5, num_hidden_layers=2)
    data = [{"input_ids": row, "labels": row} for row in IDS]
    history = kd.fit(
        student,
        data,
        teacher=teacher,
        hidden=LayerMap([(0, 1), (1, 3)], attention=0.0),
        steps=30,
        batch=3,
        lr=1e-2,
    )
    hidden = history["hidden"].dropna().tolist()
    assert hidden[-1] < 0.8 * hidden[0]
