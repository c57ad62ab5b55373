"""A file is whole or not there, and libraries keep still no longer than they are asked to."""

import logging
import sys
import warnings

import pytest

from kdlab.base.writing import beside, quiet


def test_a_file_is_replaced_at_the_end_and_an_error_leaves_the_one_before(tmp_path):
    path = tmp_path / "kept.txt"
    path.write_text("before")
    with pytest.raises(ZeroDivisionError), beside(path) as new:
        new.write_text("half")
        assert path.read_text() == "before"
        raise ZeroDivisionError
    assert path.read_text() == "before" and list(tmp_path.iterdir()) == [path]
    with beside(path) as new:
        new.write_text("after")
        assert path.read_text() == "before"
    assert path.read_text() == "after" and list(tmp_path.iterdir()) == [path]
    with pytest.raises(FileNotFoundError, match=r"no folder .*nowhere to write kept.txt in"):
        with beside(tmp_path / "nowhere" / "kept.txt"):
            pytest.fail("there is nowhere to write")


@pytest.mark.parametrize("fails", [False, True])
def test_what_libraries_say_is_heard_again_afterwards(fails, capsys, caplog):
    def chatter(word):
        print(word)
        print(word, file=sys.stderr)
        logging.getLogger("a library").warning(word)
        warnings.warn(word, stacklevel=1)

    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        try:
            with quiet():
                chatter("within")
                if fails:
                    raise ZeroDivisionError
        except ZeroDivisionError:
            assert fails
        chatter("behind")
    assert [str(one.message) for one in warned] == ["behind"]
    assert capsys.readouterr() == ("behind\n", "behind\n") and caplog.messages == ["behind"]
