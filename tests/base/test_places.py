"""The order in which data is looked for, and whether the hub can be asked."""

import socket
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub.constants

from kdlab.base import places


def test_places_are_tried_in_order(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("KDLAB_DATA", raising=False)
    where, tried = places.locate("some/set")
    assert where is None
    assert tried == ["directory some/set", "KDLAB_DATA (not set)", "hub cache, id some/set"]
    (tmp_path / "cache" / "datasets--some--set" / "snapshots").mkdir(parents=True)
    assert places.locate("some/set")[0] == "some/set"
    assert places.locate("some/set", "KDLAB_MODELS")[0] is None  # models lie elsewhere in the cache
    monkeypatch.setenv("KDLAB_DATA", str(tmp_path / "data"))
    (tmp_path / "data" / "set").mkdir(parents=True)
    where, tried = places.locate("some/set")
    assert where == tmp_path / "data" / "set" and tried[1] == f"KDLAB_DATA={tmp_path / 'data'}"
    (tmp_path / "data" / "some" / "set").mkdir(parents=True)
    assert places.locate("some/set")[0] == tmp_path / "data" / "some" / "set"
    (tmp_path / "some" / "set").mkdir(parents=True)
    assert places.locate("some/set") == (Path("some/set"), ["directory some/set"])


def test_a_short_name_stands_for_its_hub_id(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("KDLAB_DATA", raising=False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    (tmp_path / "datasets--ylecun--mnist" / "snapshots").mkdir(parents=True)
    assert places.locate("mnist")[0] == "ylecun/mnist"


def test_the_hub_is_reachable_where_a_connection_opens(monkeypatch):
    def refuse(*_):
        raise OSError("no network")

    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setattr(socket, "create_connection", lambda *_: SimpleNamespace(close=lambda: None))
    assert places.hub_reachable()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert not places.hub_reachable()
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setattr(socket, "create_connection", refuse)
    assert not places.hub_reachable()
