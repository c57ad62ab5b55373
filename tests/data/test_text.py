"""What `kd.text` offers."""

import kdlab as kd


def test_kd_text_lists_all_that_it_takes_from_its_files_and_nothing_else():
    assert {name for name in vars(kd.text) if not name.startswith("_")} == set(kd.text.__all__)


def test_what_kd_offers_too_is_the_same_there():
    assert kd.text.load_text is kd.load_text and kd.text.plain_text is kd.plain_text


def test_fields_and_texts_are_those_of_the_same_docstrings():
    texts = [text for module, text in kd.text.docstrings() if module == "email"]
    held = [text for text in texts if kd.text.held_out(text)]
    mail = kd.text.plain_text("mail")
    assert "email" in kd.text.FIELDS["mail"].split() and 0 < len(held) < len(texts)
    assert set(held) <= set(mail["test"]) and not set(held) & set(mail["train"])
