"""kdlab.teachers.signals: what is kept of a teacher is what it says of each learnt token."""

import pytest
import torch
from transformers import PreTrainedTokenizerFast

import kdlab as kd
from kdlab.data.rows import Collator
from kdlab.teachers import signals
from kdlab.teachers.api import Answer
from kdlab.teachers.server import serve
from kdlab.training.trainer import DistillationTrainer
from tests.signals import ROWS, TEACHER, by_hand
from tests.trainers import V, arguments, llama


@pytest.mark.parametrize("T", [1.0, 3.0])
def test_signals_are_the_teachers_top_k_of_each_learnt_token(T, tmp_path):
    kept = signals.from_teacher(tmp_path / "c", TEACHER, ROWS, k=4, temperature=T, batch=4, shard=2)
    for row in ROWS:
        tokens, wanted = by_hand(TEACHER, row, 4, T)
        found = {name: parts[0] for name, parts in kept[[row["id"]]].items()}
        assert found["tokens"].tolist() == tokens.tolist()
        assert found["indices"].int().tolist() == wanted.indices.tolist()
        for name in ("log_probs", "tail"):
            torch.testing.assert_close(
                found[name].double(), getattr(wanted, name).double(), rtol=1e-3, atol=1e-3
            )


def test_what_is_on_disk_is_not_taken_for_something_else(tmp_path):
    signals.from_teacher(tmp_path / "c", TEACHER, ROWS, k=3)
    with pytest.raises(ValueError, match="about must be what .*k is 3 there, 4 here"):
        signals.from_teacher(tmp_path / "c", TEACHER, ROWS, k=4)
    with pytest.raises(ValueError, match="teacher is"):
        signals.from_teacher(tmp_path / "c", llama(8, seed=4), ROWS, k=3)
    changed = [row | {"labels": row["input_ids"]} for row in ROWS]
    with pytest.raises(ValueError, match="rows is"):
        signals.from_teacher(tmp_path / "c", TEACHER, changed, k=3)


@pytest.mark.parametrize(
    "rows, options, words",
    [
        ([], {}, "rows must hold at least one text, got none"),
        ([{"input_ids": [1, 2]}], {}, r"rows must hold 'id' and 'input_ids', got \['input_ids'\]"),
        ([{"id": 1, "input_ids": [1]}], {}, r"two tokens or more .* got \(1,\) ids"),
        ([{"id": 1, "input_ids": [1, 2], "labels": [1]}], {}, r"\(1,\) labels in row 0"),
        (ROWS + ROWS[:1], {}, "ids of their own, got one twice in 'id'"),
        ([{"id": 1, "input_ids": [1] * 40}], {}, "teacher's 24 positions, got a text of 40"),
        (ROWS, {"k": 0}, "k must be a whole number"),
        (ROWS, {"k": V + 1}, "k must be a whole number from 1 to V = 32"),
        (ROWS, {"k": V + 1, "sampled": True}, "k must be a whole number from 1 to V = 32, got 33"),
        (ROWS, {"sampled": True, "seed": -1}, "seed must be a whole number of at least 0, got -1"),
        (ROWS, {"temperature": 0}, "temperature must be"),
        (ROWS, {"batch": 0}, "batch must be"),
    ],
)
def test_what_cannot_be_kept_is_told(rows, options, words, tmp_path):
    teacher = llama(4, max_position_embeddings=24)
    with pytest.raises(ValueError, match=words):
        signals.from_teacher(tmp_path / "c", teacher, rows, **{"k": 3} | options)


# --- draws ---


def test_draws_are_the_same_in_any_batch_shard_and_order(tmp_path):
    def kept(name, rows=ROWS, seed=0, **how):
        found = signals.from_teacher(
            tmp_path / name, TEACHER, rows, k=5, sampled=True, seed=seed, **how
        )
        return [found[[row["id"]]]["indices"][0].tolist() for row in ROWS]

    one = kept("one", batch=1, shard=2)
    assert one == kept("two", batch=4) == kept("three", ROWS[::-1], batch=9, shard=4)
    assert one != kept("four", seed=1)
    with pytest.raises(ValueError, match="about must be what .*seed is 0 there, 1 here"):
        kept("one", seed=1, shard=2)
    with pytest.raises(ValueError, match="sampled is True there, 'not set' here"):
        signals.from_teacher(tmp_path / "one", TEACHER, ROWS, k=5, shard=2)


def test_draws_are_kept_once_each_with_their_shares(tmp_path):
    kept = signals.from_teacher(tmp_path / "c", TEACHER, ROWS, k=5, sampled=True)
    for row in ROWS:
        tokens, _ = by_hand(TEACHER, row, 5)
        found = {name: parts[0] for name, parts in kept[[row["id"]]].items()}
        assert found["tokens"].tolist() == tokens.tolist()
        p = found["log_probs"].float().exp()
        torch.testing.assert_close(p * 5, (p * 5).round(), rtol=0, atol=5e-3)
        torch.testing.assert_close(p.sum(-1), torch.ones(len(p)), rtol=0, atol=2e-3)
        assert all(len(set(ids)) == 5 for ids in found["indices"].int().tolist())


# --- a teacher behind an API ---


def words():
    from tokenizers import Tokenizer, models

    known = {w: i for i, w in enumerate(["a", "b", "c", "d", "."])}
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(known, unk_token="a")), eos_token="."
    )


def answer(tokens, finish="stop", k=2):
    others = [[w for w in "abcd." if w != t][: k - 1] for t in tokens]
    top = [
        {t: -0.5} | {w: -2.0 - i for i, w in enumerate(o)}
        for t, o in zip(tokens, others, strict=True)
    ]
    return Answer("".join(tokens), list(tokens), [-0.5] * len(tokens), top, finish)


def test_an_end_that_the_server_does_not_list_is_certain(tmp_path):
    said = {
        "listed": answer("ab."),
        "left out": answer("ab"),
        "cut": answer("ab", "length"),
        "more told": answer("ab", "length", k=4),
    }
    tokenizer = words()
    kept = signals.from_answers(tmp_path / "c", said, tokenizer)
    rows = signals.answered({key: [3, 2] for key in said}, said, tokenizer)
    assert [row["input_ids"] for row in rows] == [[3, 2, 0, 1, 4]] * 2 + [[3, 2, 0, 1]] * 2
    assert [row["labels"] for row in rows] == [[-100, -100, 0, 1, 4]] * 2 + [[-100, -100, 0, 1]] * 2
    ends = kept[["left out"]]
    p = ends["log_probs"][0].float().exp()
    assert ends["indices"][0][2].int().tolist()[0] == 4 and p[2].tolist() == [1.0, 0.0]
    assert len(set(ends["indices"][0][2].int().tolist())) == 2
    whole = kept[["more told"]]  # of four told, two are kept as of the others, two join the rest
    total = whole["log_probs"][0].float().exp().sum(-1) + whole["tail"][0].float().exp()
    torch.testing.assert_close(total, torch.ones(2), rtol=0, atol=2e-3)
    batch = kd.SignalCollator(kept)(rows)
    teacher = signals.unpacked(batch["teacher_logits"])
    assert teacher.indices[1, 3, 0] == 4  # beside the token before the end


def test_answers_without_numbers_or_of_other_words_are_refused(tmp_path):
    mute = Answer("", [], [], [], "refusal")
    with pytest.raises(ValueError, match="answers must hold at least one, got none"):
        signals.from_answers(tmp_path / "b", {}, words())
    with pytest.raises(ValueError, match=r"answers\['x'\] must hold log-probabilities.*'refusal'"):
        signals.from_answers(tmp_path / "c", {"x": mute}, words())
    with pytest.raises(ValueError, match="no piece of this tokenizer's vocabulary"):
        signals.from_answers(tmp_path / "d", {"x": answer("ab") and answer(["z"])}, words())
    with pytest.raises(ValueError, match=r"prompts must hold every id .*\['y'\]"):
        signals.answered({"x": "a"}, {"y": answer("ab")}, words())


def test_answers_of_a_server_are_bought_once_and_taught_many_times(tmp_path):
    """What comes over HTTP and is read from disk is what the same model says in memory."""
    teacher, tokenizer = kd.language_model("docs_lm")
    prompts = dict(enumerate(["Return the", "A list of", "If the file"]))
    with serve(teacher, tokenizer) as server:
        api = kd.APITeacher(server.url, server.token, "teacher", tmp_path / "answers")
        found = api.complete(prompts.values(), 6, temperature=1.0, top_logprobs=20)
        said = dict(zip(prompts, found, strict=True))
    kept = signals.from_answers(tmp_path / "signals", said, tokenizer)
    rows = signals.answered(prompts, said, tokenizer)
    read = signals.from_teacher(tmp_path / "read", teacher, rows, k=20)
    for key in prompts:
        one, other = ({n: parts[0] for n, parts in c[[key]].items()} for c in (kept, read))
        assert one["tokens"].tolist() == other["tokens"].tolist()
        torch.testing.assert_close(one["log_probs"], other["log_probs"], rtol=2e-3, atol=2e-3)
    student, _ = kd.language_model("docs_base")
    args = arguments(tmp_path, 3, num_train_epochs=4, optim="adamw_torch", learning_rate=1e-3)
    trainer = DistillationTrainer(
        student,
        args,
        train_dataset=rows,
        data_collator=kd.SignalCollator(kept, Collator(tokenizer)),
        objective=kd.TopKLoss(),
    )
    trainer.train()
    losses = [log["soft"] for log in trainer.state.log_history if "soft" in log]
    assert losses[-1] < 0.8 * losses[0]


def test_a_server_s_reading_of_a_text_is_the_loss_that_the_teacher_gives_itself(tmp_path):
    """Scored by echo, kept on disk, joined by its id: nothing is left between it and itself."""
    teacher, tokenizer = kd.language_model("docs_lm")
    texts = {"a": "Return the number of items.", "b": "A list of names, sorted."}
    with serve(teacher, tokenizer) as server:
        api = kd.APITeacher(server.url, server.token, "teacher", tmp_path / "answers")
        scored = dict(zip(texts, api.score(texts.values(), top_logprobs=20), strict=True))
    kept = signals.from_answers(tmp_path / "signals", scored, tokenizer)
    ids = {key: tokenizer(text)["input_ids"] for key, text in texts.items()}
    assert [kept[[k]]["tokens"][0].tolist() for k in texts] == [ids[k][1:] for k in texts]
    for key in texts:
        log_p = teacher(torch.tensor([ids[key]])).logits[0, :-1].log_softmax(-1)
        known, told = (kept[[key]][name][0] for name in ("indices", "log_probs"))
        torch.testing.assert_close(
            told.float()[:, :20], log_p.gather(-1, known.long())[:, :20], rtol=2e-3, atol=2e-3
        )


def test_bytes_a_token_are_as_said(tmp_path):
    g = torch.Generator().manual_seed(0)
    rows = [
        {"id": i, "input_ids": torch.randint(1, V, (length,), generator=g).tolist()}
        for i, length in enumerate((10, 20))
    ]
    kept = signals.from_teacher(tmp_path / "c", TEACHER, rows, k=3)
    held = kept[[0, 1]]
    stored = sum(x.numel() * x.element_size() for parts in held.values() for x in parts)
    assert stored == (9 + 19) * (4 * 3 + 4 + 2)
