"""What lessons 09 to 11 and their benchmark share: rows in order, a loop whose marks are runs, and
measures of what a student predicts and writes."""

import copy
import math
from itertools import pairwise

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

import kdlab as kd
from kdlab.lessons import language, reasons
from kdlab.teachers import api

SIZES = dict(hidden_size=16, intermediate_size=16, num_attention_heads=2, num_hidden_layers=1)


@pytest.fixture(scope="module")
def known():
    return kd.language_model("docs_lm")


def tiny(seed=0):
    torch.manual_seed(seed)
    return LlamaForCausalLM(LlamaConfig(vocab_size=32, **SIZES)).eval()


def rows(count=12, length=48):
    return torch.randint(1, 32, (count, length), generator=torch.Generator().manual_seed(0))


def test_a_field_s_parts_share_no_window_and_are_the_same_each_time(known):
    for make in (language.fields, language.source_code):
        found, again = (make(known[1], count=2) for _ in range(2))
        assert len(found) == 2
        for name, field in found.items():
            assert {part: len(given) for part, given in field.items()} == {
                "train": 96,
                "validation": 64,
                "test": 128,
            }
            texts = [tuple(row) for given in field.values() for row in given.tolist()]
            assert len(set(texts)) == len(texts)
            assert all(torch.equal(given, again[name][part]) for part, given in field.items())


def test_a_repetition_draws_other_windows_orders_and_texts(known, monkeypatch):
    model, tokenizer = known

    def drawn(k):
        monkeypatch.setenv("KDLAB_REPEAT", str(k))
        field = language.fields(tokenizer, count=1)["windows"]
        text = language.written(model, field["train"][:2])["input_ids"]
        order = language.batch(torch.arange(12), 0)
        return [*field.values(), text[:, language.PROMPT :], order]

    first, second, again = drawn(1), drawn(2), drawn(1)
    assert not any(map(torch.equal, first, second)) and all(map(torch.equal, first, again))


def test_source_code_holds_no_docstring(known):
    _, tokenizer = known
    text = tokenizer.batch_decode(language.source_code(tokenizer, count=1)["windows"]["train"])
    assert '"""' not in "".join(text) and "def " in "".join(text)


def test_every_row_is_read_once_before_one_is_read_again():
    numbers = torch.arange(12)
    seen = [language.batch(numbers, step, size=4).tolist() for step in range(6)]
    first, second = sum(seen[:3], []), sum(seen[3:], [])
    assert sorted(first) == sorted(second) == list(range(12)) and first != second
    assert seen[4] == language.batch(numbers, 4, size=4).tolist()


def loss_on(given):
    def loss(student, step):
        ids = language.batch(given, step, size=4)
        return student(ids, labels=ids).loss

    return loss


def weights(student):
    return torch.cat([p.detach().flatten() for p in student.parameters()])


def test_a_mark_is_what_a_run_of_so_many_steps_gives():
    base, before = tiny(), weights(tiny())
    found = language.teach(base, loss_on(rows()), 1e-2, (0, 3, 7), weights)
    assert torch.equal(found[0], before) and torch.equal(weights(base), before)
    for mark in (3, 7):
        alone = language.teach(base, loss_on(rows()), 1e-2, [mark], weights)
        assert list(alone) == [mark] and torch.equal(alone[mark], found[mark])
        assert not torch.equal(found[mark], before)


def test_the_first_step_is_taken_at_a_tenth_of_the_rate():
    before = weights(tiny())
    found = language.teach(tiny(), loss_on(rows()), 1e-2, [1], weights)
    assert float((found[1] - before).abs().max()) == pytest.approx(1e-3, rel=0.01)  # Adam's own


def test_a_base_in_half_precision_learns_as_its_float32_self():
    half = tiny().bfloat16()
    found, whole = (
        language.teach(base, loss_on(rows()), 1e-4, [3], weights)
        for base in (half, copy.deepcopy(half).float())
    )
    assert found[3].dtype == torch.float32 and torch.equal(found[3], whole[3])
    assert half.dtype == torch.bfloat16


def test_too_few_rows_for_a_step_are_named():
    with pytest.raises(ValueError, match="batch: rows must hold at least 8, .* got 3"):
        language.batch(rows(3), 0)


def test_a_tokenizer_without_a_beginning_starts_from_its_end(known):
    model, tokenizer = known
    ends = copy.deepcopy(tokenizer)
    ends.eos_token, ends.bos_token = tokenizer.bos_token, None
    found, usual = (language.expected(model, t, "Return true") for t in (ends, tokenizer))
    assert [(w, sorted(p)) for w, p in found] == [(w, sorted(p)) for w, p in usual]


def test_a_measure_sees_eval_mode_and_training_goes_on_in_train_mode():
    modes = []

    def loss(student, step):
        modes.append(student.training)
        return loss_on(rows())(student, step)

    language.teach(tiny(), loss, 1e-2, (1, 2), lambda student: modes.append(student.training))
    assert modes == [True, False, True, False]


def test_what_is_measured_is_what_its_name_says():
    student, teacher, given = tiny(0), tiny(1), rows()
    found = language.measures(teacher, {"test": given})(student)
    assert found["predicts"] == pytest.approx(float(student(given, labels=given).loss.detach()))
    for temperature, name in ((1.0, ""), (0.8, " at 0.8")):
        text = language.written(student, given, temperature)
        ids = text["input_ids"]
        assert torch.equal(ids[:, : language.PROMPT], given[:, : language.PROMPT])
        assert ids.shape == (12, language.PROMPT + language.GO_ON)
        assert (text["labels"][:, : language.PROMPT] == -100).all()
        log_p = teacher(ids).logits[:, :-1].log_softmax(-1)
        came = -log_p.gather(-1, ids[:, 1:, None])[:, language.PROMPT - 1 :].mean()
        assert found[f"writes{name}"] == pytest.approx(float(came.detach()), rel=1e-4)
        pairs = {pair for row in ids[:, language.PROMPT :].tolist() for pair in pairwise(row)}
        assert found[f"distinct{name}"] == pytest.approx(
            100 * len(pairs) / (12 * (language.GO_ON - 1))
        )
    assert found["writes at 0.8"] != found["writes"]


def test_the_distance_after_whose_words_is_that_of_plain_loops():
    teacher, student, field = tiny(1), tiny(2), {"test": rows(70)}
    found = language.exposure(teacher, field)(student)
    given = field["test"][:64]
    texts = {
        "after the data's words": given[:, :48],
        "after its own": language.written(student, given, seed=1)["input_ids"],
    }
    for name, ids in texts.items():
        log_q, log_p = (m(ids).logits[:, :-1].log_softmax(-1).detach() for m in (student, teacher))
        apart = [
            float((log_q[b, i].exp() * (log_q[b, i] - log_p[b, i])).sum())
            for b in range(64)
            for i in range(language.PROMPT - 1, 47)
        ]
        assert found[name] == pytest.approx(sum(apart) / len(apart), rel=1e-4)
    itself = language.exposure(teacher, field)(teacher)
    assert itself == pytest.approx(dict.fromkeys(texts, 0.0), abs=1e-5)
    assert found["after its own"] != pytest.approx(found["after the data's words"], rel=1e-3)


def test_a_sentence_s_columns_hold_the_token_that_came_and_the_likeliest(known):
    model, tokenizer = known
    found = language.expected(model, tokenizer, "Return true if", top=3)
    assert "".join(token for token, _ in found) == "Return true if"
    for token, words in found:
        assert token in words and 3 <= len(words) <= 4
        assert all(0 < float(p) < 1 for p in words.values())
    ids = torch.tensor([[tokenizer.bos_token_id, *tokenizer("Return true if")["input_ids"][-3:]]])
    last = model(ids[:, :-1]).logits[0, -1].detach().softmax(-1)
    assert float(found[-1][1][" if"]) == pytest.approx(float(last[ids[0, -1]]), rel=1e-4)


def test_how_sure_a_model_is_by_plain_loops(known):
    model, tokenizer = known
    sentence = "Return true if the object is a class"
    ids = [tokenizer.bos_token_id, *tokenizer(sentence, add_special_tokens=False)["input_ids"]]
    entropies, spent, masses = [], [], {1: [], 3: [], 1024: []}
    for i in range(1, len(ids)):  # each place alone, in float64
        p = model(torch.tensor([ids[:i]])).logits[0, -1].detach().double().softmax(-1)
        entropies.append(torch.distributions.Categorical(p).entropy().item())
        spent.append(-math.log(p[ids[i]]))
        for k, shares in masses.items():
            shares.append(100 * sum(sorted(p.tolist())[-k:]))
    found = language.how_sure(model, tokenizer, sentence, ks=(1, 3, 1024))
    wanted = {"entropy": entropies, "nats": spent} | {f"top {k}": m for k, m in masses.items()}
    assert found == pytest.approx({k: sum(v) / len(v) for k, v in wanted.items()}, rel=1e-4)
    row = torch.tensor([ids])
    assert found["nats"] == pytest.approx(language.nats(model, row), rel=1e-5)


def test_a_model_that_knows_nothing_is_as_unsure_as_can_be(known):
    model, tokenizer = copy.deepcopy(known[0]), known[1]
    model.lm_head.weight = torch.nn.Parameter(torch.zeros_like(model.lm_head.weight))
    found = language.how_sure(model, tokenizer, "a class", ks=(1, 100))
    even = {"entropy": math.log(1024), "nats": math.log(1024), "top 1": 100 / 1024}
    assert found == pytest.approx(even | {"top 100": 100 * 100 / 1024}, rel=1e-4)


@pytest.mark.parametrize(
    "changed, error, words",
    [
        ({"sentence": ""}, ValueError, "sentence must not be empty"),
        ({"sentence": None}, TypeError, "sentence must be a string, got NoneType"),
        ({"sentence": "the " * 512}, ValueError, "sentence must hold at most 511 tokens"),
        ({"ks": (1, 1025)}, ValueError, r"ks must be a whole number in \[1, 1024\], got 1025"),
        ({"ks": 5}, TypeError, "ks must be a list of whole numbers, got int"),
    ],
)
def test_how_sure_names_what_cannot_be(known, changed, error, words):
    asked = {"sentence": "Return true", "ks": (1,)} | changed
    with pytest.raises(error, match=f"^how_sure: {words}"):
        language.how_sure(*known, **asked)


def test_shades_are_the_teacher_s_probabilities_and_none_for_the_beginning(known):
    model, tokenizer = known
    ids = language.fields(tokenizer, count=1)["windows"]["test"][0, :24]
    found = language.shaded(model, tokenizer, ids)
    assert [token for token, _ in found] == [tokenizer.decode([i]) for i in ids.tolist()]
    assert [p for _, p in found[: language.PROMPT]] == [None] * language.PROMPT
    spent = sum(-math.log(p) for _, p in found[language.PROMPT :]) / (24 - language.PROMPT)
    batch = {"input_ids": ids[None], "labels": ids[None].clone()}
    batch["labels"][:, : language.PROMPT] = -100
    assert spent == pytest.approx(math.log(kd.perplexity(model, batch)), rel=1e-4)


def test_an_answer_bought_stops_at_its_end_and_learns_it(known):
    model, tokenizer = known
    given = language.fields(tokenizer, count=1)["windows"]["train"][:8]
    found = language.bought(model, given[:, : language.PROMPT])
    learnt = found["labels"] != -100
    assert torch.equal(found["input_ids"][:, : language.PROMPT], given[:, : language.PROMPT])
    assert not learnt[:, : language.PROMPT].any() and learnt.sum(1).max() <= 64 - language.PROMPT
    ends = found["labels"] == tokenizer.eos_token_id
    assert ends.any() and (ends.sum(1) <= 1).all()
    for row, end in zip(learnt, ends, strict=True):  # nothing behind the end, nothing left out
        last = int(end.nonzero()[0, 0]) if end.any() else 63
        assert row[language.PROMPT : last + 1].all() and not row[last + 1 :].any()


def test_an_answer_sold_shows_each_token_beside_the_likeliest(known):
    _, tokenizer = known
    pieces = tokenizer.convert_ids_to_tokens(tokenizer(" the number")["input_ids"])
    top = [{pieces[0]: math.log(0.5), "Ġa": math.log(0.25), "Ġan": math.log(0.1)}]
    top += [{"Ġa": math.log(0.5), "Ġan": math.log(0.25), "Ġis": math.log(0.1)}] * (len(pieces) - 1)
    log_p = [math.log(0.5)] + [math.log(0.01)] * (len(pieces) - 1)
    answer = api.Answer(" the number", pieces, log_p, top, "length")
    found = language.sold(answer, tokenizer, top=2)
    assert "".join(token for token, _ in found) == " the number"
    assert found[0] == (" the", {" the": pytest.approx(0.5), " a": pytest.approx(0.25)})
    assert found[1][1] == {
        " a": pytest.approx(0.5),
        " an": pytest.approx(0.25),
        found[1][0]: pytest.approx(0.01),
    }


def test_who_slips_is_right_in_two_answers_of_five():
    questions, said, label = reasons.bought(answers=2)
    assert len(questions) == len(said) == len(label) == 10_000
    told = dict(reasons.right())
    assert all(kd.last_number(told[q]) == label[q] for q in questions[::97])
    share = sum(
        kd.last_number(a) == label[q] for q, two in zip(questions, said, strict=True) for a in two
    )
    assert 0.35 < share / 20_000 < 0.45  # 0.7³, and what cancels


def test_a_teacher_is_measured_on_the_texts_before_it_teaches(known, capsys):
    (teacher, tokenizer), (base, _) = known, kd.language_model("docs_base")
    small = language.fields(tokenizer, count=1)
    assert language.knows(teacher, base, small) is True
    assert "The teacher has something to teach." in capsys.readouterr().out
    code = language.source_code(tokenizer, count=1)  # lesson 09: labels win here
    assert language.knows(teacher, base, code) is False
    said = capsys.readouterr().out
    assert (
        said.startswith("windows: the teacher reads it with") and "holds the student back" in said
    )
