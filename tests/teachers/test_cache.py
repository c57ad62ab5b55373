"""kdlab.teachers.cache: what is read is what was computed, whatever happened in between."""

import multiprocessing
import os
import signal

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from kdlab.teachers import cache
from kdlab.teachers.cache import Cache, build, fingerprint_model, fingerprint_tensors
from tests.caches import ABOUT, IDS, Teacher, fail, files


def test_the_rows_asked_for_come_in_the_order_asked_for(made):
    held = Cache(made, ABOUT)
    for order in (
        IDS,
        IDS[::-1],
        ["s7", "s0", "s7", "s9"],
        [IDS[i] for i in np.random.default_rng(0).permutation(10)],
    ):
        found, number = held[order], [int(i[1:]) for i in order]
        assert found["number"].tolist() == number
        assert found["logits"].float().tolist() == [[n + j / 8 for j in range(4)] for n in number]
    assert held[[]]["logits"].shape == (0, 4)
    assert held.ids == IDS and len(held) == 10
    held[IDS[:3]]["number"].zero_()  # the caller's own
    assert (
        held[IDS]["number"].tolist()
        == Cache(made, ABOUT)[IDS]["number"].tolist()
        == list(range(10))
    )


@pytest.mark.parametrize(
    "kind", "float64 float32 bfloat16 float16 int64 int32 int16 uint8 bool".split()
)
def test_every_type_comes_back_bit_by_bit(kind, tmp_path):
    rows = (torch.randn(7, 2, 3) * 50).to(getattr(torch, kind))
    found = build(tmp_path, range(7), lambda ids: {"x": rows[ids]}, ABOUT, shard=4)[[6, 0, 3]]["x"]
    assert found.dtype == rows.dtype and torch.equal(found, rows[[6, 0, 3]])


def test_views_and_values_that_are_no_numbers_are_kept_and_no_gradient_is_asked_for(tmp_path):
    x = torch.tensor([[1.0, torch.nan, -torch.inf], [2.0, 3.0, torch.inf]], requires_grad=True)

    def produce(ids):
        assert not (x * 2).requires_grad
        return {"column": x.T[0], "same": x, "again": x, "turned": x.T.contiguous().T}

    found = build(tmp_path, [0, 1], produce, ABOUT)[torch.tensor([1, 0])]
    assert found.pop("column").tolist() == [2.0, 1.0]
    for name in ("same", "again", "turned"):
        torch.testing.assert_close(found[name], x.detach().flip(0), equal_nan=True, rtol=0, atol=0)


def test_ids_are_strings_or_numbers_and_not_mixed_up(tmp_path):
    rows = {1: 0, "1": 1, -5: 2, "ü/": 3}
    held = build(
        tmp_path, list(rows), lambda ids: {"x": torch.tensor([rows[i] for i in ids])}, ABOUT
    )
    assert held[["1", 1, "ü/", -5]]["x"].tolist() == [1, 0, 3, 2] and held[np.array([-5, 1])][
        "x"
    ].tolist() == [2, 0]
    with pytest.raises(
        ValueError, match=r"ids must be among the 4 of .*, got \[2, '-5'\], which are not"
    ):
        held[[1, 2, "-5"]]
    with pytest.raises(
        TypeError, match="^Cache: ids must be a list of strings or whole numbers, got '1'"
    ):
        held["1"]


def test_only_the_shards_asked_for_are_opened(made, monkeypatch):
    opened, held, real = [], Cache(made, ABOUT), cache.safe_open
    monkeypatch.setattr(
        cache, "safe_open", lambda file, kind: opened.append(file.name) or real(file, kind)
    )
    for _ in range(2):
        held[["s9", "s4", "s5"]]
    assert sorted(opened) == ["shard-00001.safetensors", "shard-00003.safetensors"]


def test_a_whole_cache_is_not_computed_again_and_not_touched(made):
    before, teacher = {p: p.stat().st_mtime_ns for p in made.iterdir()}, Teacher()
    (made / "manifest.json.partial").write_bytes(b"half")
    assert build(made, np.array(IDS), teacher, ABOUT | {"layers": (1, 2)}, shard=3)[["s8"]][
        "number"
    ].tolist() == [8]
    assert teacher.calls == [] and {p: p.stat().st_mtime_ns for p in made.iterdir()} == before


def killed(path):
    build(path, IDS, Teacher(2, lambda: os.kill(os.getpid(), signal.SIGKILL)), ABOUT, shard=3)


def test_a_killed_build_goes_on(made, tmp_path):
    path = tmp_path / "killed"
    process = multiprocessing.get_context("fork").Process(target=killed, args=(path,))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    # killed a moment later: a file that is half written, and one that the manifest does not know
    # yet
    (path / "shard-00003.safetensors.partial").write_bytes(b"half")
    (path / "shard-00002.safetensors").write_bytes(files(made)["shard-00002.safetensors"])
    with pytest.raises(
        ValueError, match="is unfinished, 6 of 10 rows; call kdlab.teachers.cache.build again"
    ):
        Cache(path, ABOUT)
    build(path, IDS, teacher := Teacher(), ABOUT, shard=3)
    assert teacher.calls == [IDS[6:9], IDS[9:]] and files(path) == files(made)


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left"), KeyboardInterrupt("stop"), RuntimeError("in the row")]
)
def test_a_failure_leaves_the_shards_before_it(error, made, tmp_path, monkeypatch):
    path, disk, fsyncs = tmp_path / "failed", isinstance(error, OSError), []
    with monkeypatch.context() as patch, pytest.raises(type(error), match=error.args[-1]):
        if (
            disk
        ):  # the first manifest, then shard and manifest by turns: the sixth is a shard's file
            patch.setattr(
                os, "fsync", lambda fd: fsyncs.append(fd) if len(fsyncs) < 5 else fail(error)
            )
        build(path, IDS, Teacher(None if disk else 2, lambda: fail(error)), ABOUT, shard=3)
    assert set(files(path)) == {
        "manifest.json",
        "shard-00000.safetensors",
        "shard-00001.safetensors",
    }
    build(path, IDS, teacher := Teacher(), ABOUT, shard=3)
    assert teacher.calls == [IDS[6:9], IDS[9:]] and files(path) == files(made)


@pytest.mark.parametrize(
    "produce, error, words",
    [
        (
            lambda ids: torch.zeros(len(ids)),
            TypeError,
            "produce must return a dictionary of tensors, .*got Tensor",
        ),
        (
            lambda ids: {"x": torch.zeros(2)},
            ValueError,
            r"one row for each of the 3 ids .* got \{'x': \(2,\)\}",
        ),
        (
            lambda ids: {"x": torch.zeros(len(ids), 1 + ("s4" in ids))},
            ValueError,
            (
                r"the same rows each time, \{'x': \['float32', \[1\]\]\}, got .*\[2\].* for"
                r" shard-00001"
            ),
        ),
        (
            lambda ids: {"x": torch.zeros(len(ids)).to(torch.half if "s4" in ids else torch.float)},
            ValueError,
            "'float16'",
        ),
    ],
)
def test_rows_that_do_not_fit_are_told(produce, error, words, tmp_path):
    with pytest.raises(error, match=f"^build: .*{words}"):
        build(tmp_path, IDS, produce, ABOUT, shard=3)
    assert not list(tmp_path.glob("*.partial"))


@pytest.mark.parametrize(
    "change, error, words",
    [
        (
            {"ids": ["a", "b", "a"]},
            ValueError,
            "ids must be unique and at least one, got 'a' twice",
        ),
        ({"ids": []}, ValueError, "ids must be unique and at least one, got none"),
        ({"ids": "abc"}, TypeError, "ids must be a list of strings or whole numbers, got 'abc'"),
        ({"ids": 3}, TypeError, "ids must be a list of strings or whole numbers, got 3"),
        ({"ids": [True]}, TypeError, "ids must be strings or whole numbers, got True"),
        ({"shard": 0}, ValueError, "shard must be a whole number of at least 1, got 0"),
        ({"about": "abc"}, TypeError, "about must be a dictionary of settings, got str"),
        ({"about": {"T": float("nan")}}, TypeError, "about must hold JSON values"),
    ],
)
def test_arguments_are_checked_before_anything_is_written(change, error, words, tmp_path):
    given = {"ids": IDS, "about": ABOUT, "shard": 3} | change
    with pytest.raises(error, match=f"^build: {words}"):
        build(tmp_path / "new", given["ids"], Teacher(), given["about"], given["shard"])
    assert not (tmp_path / "new").exists()


def test_fingerprints_change_with_names_types_shapes_and_numbers_and_buffers():
    x = torch.arange(6.0)
    different = [
        {"x": x},
        {"y": x},
        {"x": x.view(2, 3)},
        {"x": x.view(3, 2)},
        {"x": x.view(torch.int32)},
        {"x": -x},
        {"x": x.half()},
        {"x": x.flip(0)},
        {"x": x[:5]},
        {"x": x, "y": x[:0]},
        {"x": x[0]},
        {"x": x[:1]},
    ]
    assert len({fingerprint_tensors(t) for t in different}) == len(different)
    assert fingerprint_tensors({"a": x, "b": x.view(2, 3)}) == fingerprint_tensors(
        {"b": x.view(2, 3).T.contiguous().T, "a": x.clone()}
    )
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)).to(torch.bfloat16)
    seen = {fingerprint_model(model), fingerprint_model(model.eval().requires_grad_(False))}
    with torch.no_grad():
        for change in (
            lambda: model[0].weight[1, 1].add_(1),
            lambda: model[1].running_mean.add_(1),
            model.float,
        ):
            change()
            seen.add(fingerprint_model(model))
    assert len(seen) == 4


# --- rows of any length ---


def ragged(ids):
    """Rows as long as their number, under two names, beside one number a row."""
    n = [int(str(i).strip("s")) for i in ids]
    return {
        "few": [(torch.arange(k * 2).view(k, 2) + k).to(torch.uint16) for k in n],
        "number": torch.tensor(n),
        "bits": [torch.full((k,), k / 8, dtype=torch.half) for k in n],
    }


def test_rows_of_any_length_come_back_in_any_order_without_padding(tmp_path):
    made = build(tmp_path / "c", IDS, ragged, ABOUT, shard=3)
    assert made.names == ["few", "number", "bits"] and made.about == ABOUT
    asked = ["s7", "s0", "s3", "s7", "s9"]
    found, wanted = made[asked], ragged(asked)
    assert torch.equal(found["number"], wanted["number"])
    for name in ("few", "bits"):
        for one, other in zip(found[name], wanted[name], strict=True):
            assert one.dtype == other.dtype and torch.equal(one, other)
    found["bits"][0].fill_(9)  # the caller's own
    assert torch.equal(made[["s7"]]["bits"][0], wanted["bits"][0])
    stored = [load_file(p) for p in sorted((tmp_path / "c").glob("*.safetensors"))]
    assert sum(len(shard["few"]) for shard in stored) == sum(range(10))
    none = made[[]]
    assert none["few"] == none["bits"] == [] and none["number"].shape == (0,)


def test_rows_of_any_length_go_on_after_an_interruption(tmp_path):
    def stops(ids):
        if "s6" in ids:
            fail(KeyboardInterrupt())
        return ragged(ids)

    with pytest.raises(KeyboardInterrupt):
        build(tmp_path / "c", IDS, stops, ABOUT, shard=3)
    asked = []
    made = build(tmp_path / "c", IDS, lambda i: asked.append(i) or ragged(i), ABOUT, shard=3)
    assert asked == [IDS[6:9], IDS[9:]]
    assert [len(row) for row in made[IDS]["few"]] == [*range(10)]


@pytest.mark.parametrize(
    "rows, words",
    [
        ([torch.zeros(2)], r"one row for each of the 2 ids .* \{'x': 'a list of 1'\}"),
        ([torch.zeros(2), torch.zeros(2).half()], "one type that differ in L alone"),
        ([torch.zeros(2, 3), torch.zeros(2, 4)], "one type that differ in L alone"),
        ([torch.zeros(()), torch.zeros(2)], "one type that differ in L alone"),
    ],
)
def test_ragged_rows_that_do_not_fit_are_told(rows, words, tmp_path):
    with pytest.raises(ValueError, match=f"^build: .*{words}"):
        build(tmp_path / "c", ["a", "b"], lambda ids: {"x": rows}, ABOUT)
    with pytest.raises(ValueError, match="one type that differ"):
        clash = {"x": [torch.zeros(1), torch.zeros(2)], "x.lengths": torch.zeros(2)}
        build(tmp_path / "d", ["a", "b"], lambda ids: clash, ABOUT)
