"""What lesson 08 and its benchmark share: texts, a step with and without hidden layers, and which
words an answer rests on."""

import pytest
import torch

import kdlab as kd
from kdlab.lessons import encoders, exercises, language
from kdlab.lessons.exercises import lesson08


@pytest.fixture(scope="module")
def known():
    return kd.text_classifier("docs_bert")


@pytest.fixture(scope="module")
def texts(known):
    return encoders.sample(known[1], 0, labels=64)


def test_the_parts_share_no_text_and_padding_is_masked(texts):
    train, test, held = (texts[part] for part in ("train", "test", "held"))
    assert [len(part["labels"]) for part in (train, test, held)] == [64, 800, 300]
    assert not set(train["texts"]) & set(test["texts"] + held["texts"])
    assert train["input_ids"].shape == (64, encoders.LENGTH)
    assert (train["input_ids"][train["attention_mask"] == 0] == 0).all()
    assert len(texts["names"]) == 8


def test_a_repetition_draws_other_texts_to_learn_from_and_the_same_exam(known, texts, monkeypatch):
    monkeypatch.setenv("KDLAB_REPEAT", "1")
    other = encoders.sample(known[1], 0, labels=64)
    assert other["train"]["texts"] != texts["train"]["texts"]
    assert other["test"]["texts"] == texts["test"]["texts"]
    drawn = [encoders.narrow(known[0], 0).classifier.weight]
    monkeypatch.delenv("KDLAB_REPEAT")
    drawn.append(encoders.narrow(known[0], 0).classifier.weight)
    assert not torch.equal(*drawn)


def test_a_student_drawn_anew_is_as_deep_and_as_wide_as_is_asked(known):
    teacher = known[0]
    half, wide, deep = (encoders.narrow(teacher, 0, *shape) for shape in ((), (1, 128), (2, 104)))
    assert [m.config.hidden_size for m in (half, wide, deep)] == [64, 128, 104]
    assert [len(m.base_model.encoder.layer) for m in (half, wide, deep)] == [2, 1, 2]
    assert kd.parameters(wide) == kd.parameters(kd.student_from(teacher, layers=[0]))
    assert kd.parameters(deep) == pytest.approx(kd.parameters(wide), rel=0.02)
    inner = [m.config.intermediate_size / m.config.hidden_size for m in (teacher, deep)]
    assert inner[0] == inner[1]


def test_the_learner_s_two_functions_are_the_library_s_relations(known, texts):
    """The same loss, and the same student after three steps, with rows of other lengths."""
    teacher, found = known[0], []
    for hidden in (encoders.Relating(lesson08.relate, lesson08.relation_kl), kd.Relations()):
        pair = encoders.Pair(encoders.narrow(teacher, 0).eval(), hidden, teacher)
        loss = encoders.lesson(texts["train"], kd.KDLoss(2), teacher, pair.hidden)
        torch.manual_seed(0)
        ends = language.teach(
            pair, loss, 1e-3, [0, 3], lambda m: encoders.answers(m, texts["held"])
        )
        found.append((loss(pair, 1).item(), ends[3]))
        assert not torch.equal(ends[0], ends[3])
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-4)
    torch.testing.assert_close(found[0][1], found[1][1], rtol=1e-3, atol=1e-3)


def test_projectors_learn_with_the_student_and_the_teacher_does_not(known, texts):
    teacher, kept = known[0], {}
    before = {k: v.clone() for k, v in teacher.state_dict().items()}
    pair = encoders.Pair(encoders.narrow(teacher, 0), kd.LayerMap([(0, 1), (1, 3)]), teacher)
    loss = encoders.lesson(texts["train"], kd.KDLoss(2), teacher, pair.hidden)
    language.teach(pair, loss, 1e-3, [2], lambda model: kept.update(model=model))
    moved = {
        name
        for name, p in kept["model"].named_parameters()
        if not torch.equal(p, pair.get_parameter(name))
    }
    assert {name for name, _ in pair.named_parameters() if "projectors" in name} <= moved
    assert all(torch.equal(v, before[k]) for k, v in teacher.state_dict().items())


def test_without_a_teacher_the_labels_are_learnt(known, texts):
    student = kd.student_from(known[0], layers=[0])
    loss = encoders.lesson(texts["train"], kd.HardLabels())(student, 0)
    at = language.batch(torch.arange(64), 0, 16)
    rows = {k: v[at] for k, v in encoders.inputs(texts["train"]).items()}
    expected = torch.nn.functional.cross_entropy(
        student(**rows).logits, texts["train"]["labels"][at]
    )
    assert loss.item() == pytest.approx(expected.item(), rel=1e-4)


def test_the_cut_of_the_exercise_is_student_from(known, texts):
    teacher = known[0]
    cut, copied = lesson08.cut(teacher, [0, 2]), kd.student_from(teacher, layers=[0, 2])
    assert torch.equal(*(encoders.answers(m, texts["held"]) for m in (cut, copied)))


def test_what_an_answer_rests_on_is_what_it_loses_without_the_word(known):
    words, shares = encoders.rests_on(*known, "Manages one or more shared memory segments.")
    assert [word for word, _ in words] == "Manages one or more shared memory segments.".split()
    rows = encoders.encoded(
        known[1], {"text": ["Manages one or more memory segments."], "label": [0]}
    )
    without = encoders.answers(known[0], rows).softmax(-1)[0]
    said = shares.argmax()
    assert dict(words)["shared"] == pytest.approx(float(shares[said] - without[said]), abs=1e-5)


def test_a_bag_of_words_reads_the_tokens_that_students_see(known):
    train = {"text": ["the mail", "a file"] * 8, "label": [0, 1] * 8}
    rows = encoders.encoded(known[1], train)
    assert encoders.bag_of_words(rows, rows, known[1]) == 100
    late = {"text": ["word " * 30 + t for t in train["text"]], "label": train["label"]}
    assert encoders.bag_of_words(*[encoders.encoded(known[1], late)] * 2, known[1]) == 50


def test_there_are_ten_wrong_answers_or_more_an_exercise():
    assert all(len(e.mistakes) >= 10 for e in lesson08.EXERCISES)
    assert exercises.lesson08 is lesson08


def test_another_family_of_encoders_is_cut_narrowed_and_taught(texts):
    from transformers import DistilBertConfig, DistilBertForSequenceClassification

    sizes = dict(dim=16, hidden_dim=32, n_heads=2, n_layers=4, num_labels=8)
    teacher = DistilBertForSequenceClassification(DistilBertConfig(vocab_size=2048, **sizes)).eval()
    assert len(lesson08.cut(teacher, [0, 2]).distilbert.transformer.layer) == 2
    small = encoders.narrow(teacher, 0)
    assert small.distilbert.transformer.layer[0].ffn.lin1.weight.shape == (16, 8)
    hidden = encoders.Relating(lesson08.relate, lesson08.relation_kl)
    pair = encoders.Pair(small, hidden, teacher)
    assert encoders.lesson(texts["train"], kd.KDLoss(2), teacher, pair.hidden)(pair, 0).isfinite()


def test_other_data_give_the_teacher_a_new_head_and_train_it(tmp_path, monkeypatch):
    from datasets import Value

    rows = kd.load_text("docstrings", 0, (4000, 0, 600))
    for part in ("train", "test"):
        here = rows[part].filter(lambda row: row["label"] < 3)
        here = here.cast_column("label", Value("int64"))  # three classes, without names
        here.to_parquet(str(tmp_path / f"{part}.parquet"))
    monkeypatch.setattr(encoders, "OWN", 64)
    teacher, tokenizer = encoders.classifier("docs_bert", str(tmp_path))
    assert teacher.config.num_labels == 3 and not teacher.training
