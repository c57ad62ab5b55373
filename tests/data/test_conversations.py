"""Prompts with answers, and conversations, as rows: what is read, what is learnt, and where it
ends."""

import copy

import datasets
import pytest

import kdlab as kd

PLAIN = (
    "{% for m in messages %}<{{ m['role'] }}> {{ m['content'] }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant> {% endif %}"
)
MARKED = (
    "{% for m in messages %}<{{ m['role'] }}> {% if m['role'] == 'assistant' %}{% generation %}"
    "{{ m['content'] }}{{ eos_token }}{% endgeneration %}{% else %}{{ m['content'] }}"
    "{{ eos_token }}{% endif %}{% endfor %}{% if add_generation_prompt %}<assistant> {% endif %}"
)
# as models that think write: only the last answer keeps its thoughts
FORGETS = PLAIN.replace(
    "{{ m['content'] }}",
    "{{ m['content'] if loop.last else m['content'].split('</think>')[-1] }}",
)
TALK = [
    {"role": "system", "content": "Answer in a word."},
    {"role": "user", "content": "Open or close?"},
    {"role": "assistant", "content": "Close."},
    {"role": "user", "content": "And the file?"},
    {"role": "assistant", "content": "Closed."},
]


@pytest.fixture(scope="module")
def tokenizer():
    return kd.language_model("docs_lm")[1]


def with_template(tokenizer, template):
    own = copy.deepcopy(tokenizer)
    own.chat_template = template
    return own


def words(tokenizer, row):
    """The text of a row, and the pieces of it that are learnt, "|" where something else stands."""
    ids, labels = row["input_ids"], row["labels"]
    learnt = labels >= 0
    assert (labels[learnt] == ids[learnt]).all()
    pieces, before = [], False
    for token, counts in zip(ids.tolist(), learnt.tolist(), strict=True):
        if counts and not before:
            pieces.append([])
        if counts:
            pieces[-1].append(token)
        before = counts
    return tokenizer.decode(ids), [tokenizer.decode(piece) for piece in pieces]


def only(rows):
    (row,) = rows
    return row


@pytest.mark.parametrize("template", [PLAIN, MARKED], ids=["grows", "marks"])
def test_what_the_assistant_says_is_learnt_with_the_end_of_each_turn(tokenizer, template):
    own = with_template(tokenizer, template)
    text, learnt = words(own, only(kd.to_rows([{"messages": TALK}], own)))
    end = own.eos_token
    assert text.startswith(f"<system> Answer in a word.{end}<user>") and text.endswith(end)
    assert [piece.strip() for piece in learnt] == [f"Close.{end}", f"Closed.{end}"]


def test_marks_and_growth_agree(tokenizer):
    rows = [kd.to_rows([{"messages": TALK}], with_template(tokenizer, t)) for t in (PLAIN, MARKED)]
    for key in ("input_ids", "labels"):
        assert rows[0][0][key].tolist() == rows[1][0][key].tolist()


def test_the_last_answer_alone_or_everything(tokenizer):
    own = with_template(tokenizer, PLAIN)
    _, last = words(own, only(kd.to_rows([{"messages": TALK}], own, learn="last answer")))
    assert [piece.strip() for piece in last] == [f"Closed.{own.eos_token}"]
    row = only(kd.to_rows([{"messages": TALK}], own, learn="everything"))
    assert (row["labels"] == row["input_ids"]).all()


def test_prompt_and_completion_as_messages_learn_the_completion_alone(tokenizer):
    for template in (PLAIN, MARKED):
        own = with_template(tokenizer, template)
        data = [{"prompt": TALK[:4], "completion": TALK[4:]}]
        row = only(kd.to_rows(data, own))
        assert row["input_ids"].tolist() == own.apply_chat_template(TALK)["input_ids"]
        assert [piece.strip() for piece in words(own, row)[1]] == [f"Closed.{own.eos_token}"]


def test_a_template_that_changes_what_came_before_is_refused_but_for_the_last_answer(tokenizer):
    own = with_template(tokenizer, FORGETS)
    talk = copy.deepcopy(TALK)
    talk[2]["content"] = "<think>hm</think>Close."
    with pytest.raises(ValueError, match=r"data\[0\]: the template .* at turn 2"):
        kd.to_rows([{"messages": talk}], own)
    _, learnt = words(own, only(kd.to_rows([{"messages": talk}], own, learn="last answer")))
    assert [piece.strip() for piece in learnt] == [f"Closed.{own.eos_token}"]


def test_what_the_template_asks_for_is_passed_on(tokenizer):
    own = with_template(tokenizer, "{{ greeting }}" + PLAIN)
    row = only(kd.to_rows([{"messages": TALK}], own, greeting="Hello"))
    assert own.decode(row["input_ids"]).startswith("Hello<system>")


def test_a_completion_is_learnt_with_its_end_and_the_prompt_is_not(tokenizer):
    data = datasets.Dataset.from_dict({"prompt": ["Return the"], "completion": [" number of"]})
    text, learnt = words(tokenizer, only(kd.to_rows(data, tokenizer)))
    assert (text, learnt) == ("Return the number of<s>", [" number of<s>"])
    text, learnt = words(tokenizer, only(kd.to_rows(data, tokenizer, end=False)))
    assert (text, learnt) == ("Return the number of", [" number of"])


def test_an_end_that_is_there_is_not_doubled(tokenizer):
    data = [{"prompt": "Return", "completion": " it.<s>"}]
    assert words(tokenizer, only(kd.to_rows(data, tokenizer)))[1] == [" it.<s>"]


def test_a_token_across_the_border_is_the_completion_s(tokenizer):
    assert len(tokenizer("Return")["input_ids"]) < len(tokenizer("Ret")["input_ids"]) + len(
        tokenizer("urn")["input_ids"]
    )
    row = only(kd.to_rows([{"prompt": "Ret", "completion": "urn"}], tokenizer))
    assert words(tokenizer, row) == ("Return<s>", ["Return<s>"])


def test_a_text_is_learnt_whole(tokenizer):
    row = only(kd.to_rows([{"text": "Return it."}], tokenizer))
    assert words(tokenizer, row) == ("Return it.<s>", ["Return it.<s>"])


def test_long_rows_are_told_cut_or_left_out(tokenizer):
    data = [{"text": "Return it."}, {"text": "Return the number of bytes written."}]
    short = len(kd.to_rows(data[:1], tokenizer)[0]["input_ids"])
    with pytest.raises(ValueError, match=r"data\[1\] must be at most max_length"):
        kd.to_rows(data, tokenizer, max_length=short)
    cut = kd.to_rows(data, tokenizer, max_length=short, too_long="cut")
    assert [len(row["input_ids"]) for row in cut] == [short, short]
    assert len(kd.to_rows(data, tokenizer, max_length=short, too_long="drop")) == 1
    with pytest.raises(ValueError, match="must hold a row that is not left out"):
        kd.to_rows(data, tokenizer, max_length=1, too_long="drop")


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"messages": TALK[:2]}, "a turn of the assistant"),
        ({"messages": TALK}, "chat_template"),
        ({"messages": ["hello"]}, '"role" and "content"'),
        ({"messages": "hello"}, "messages must be a list"),
        ({"prompt": "a", "completion": TALK[4:]}, "both texts or both messages"),
        ({"prompt": "a"}, "must hold prompt and completion"),
        ({"question": "a"}, r"got \['question'\]"),
        ("a", "must be a dictionary"),
    ],
)
def test_a_row_of_no_such_form_is_told_by_its_number(row, said, tokenizer):
    with pytest.raises((TypeError, ValueError), match=said) as raised:
        kd.to_rows([{"text": "fine"}, row], tokenizer)
    assert "data[1]" in str(raised.value)


def test_an_empty_completion_has_nothing_to_learn_without_its_end(tokenizer):
    data = [{"prompt": "Return", "completion": ""}]
    assert words(tokenizer, only(kd.to_rows(data, tokenizer)))[1] == ["<s>"]
    with pytest.raises(ValueError, match="a completion to learn"):
        kd.to_rows(data, tokenizer, end=False)


def test_rows_go_through_collator_and_fit(tokenizer):
    student, _ = kd.language_model("docs_base")
    data = [
        {"prompt": "Return", "completion": " the number of bytes."},
        {"prompt": "Open", "completion": " it."},
    ]
    rows = kd.to_rows(data, tokenizer)
    batch = kd.Collator(tokenizer)(rows)
    assert (batch["labels"] == tokenizer.eos_token_id).sum(1).tolist() == [1, 1]
    history = kd.fit(
        student, rows, objective=kd.HardLabels(), collator=kd.Collator(tokenizer), steps=2, batch=2
    )
    assert history["loss"].notna().all()


def test_a_row_that_is_cut_before_its_answer_is_told_and_not_learnt_whole(tokenizer):
    data = [{"prompt": "Return the number of bytes", "completion": " written."}]
    with pytest.raises(ValueError, match=r"data\[0\] must hold a token that is learnt, got none"):
        kd.to_rows(data, tokenizer, max_length=3, too_long="cut")
