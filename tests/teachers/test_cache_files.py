"""What lies in the folder of a cache: plain files that are as they were written, or are told."""

import hashlib
import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from kdlab.teachers.cache import Cache, build
from tests.caches import ABOUT, IDS, Teacher, files


def test_the_files_are_plain_safetensors_and_the_manifest_says_what_they_hold(made):
    manifest = json.loads((made / "manifest.json").read_text())
    assert manifest["about"] == ABOUT and manifest["rows"] == {
        "logits": ["bfloat16", [4]],
        "number": ["int32", []],
    }
    assert [r["ids"] for r in manifest["shards"]] == [IDS[:3], IDS[3:6], IDS[6:9], IDS[9:]]
    for record in manifest["shards"]:
        data = (made / record["file"]).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (record["bytes"], record["sha256"])
    assert load_file(made / "shard-00001.safetensors")["number"].tolist() == [3, 4, 5]
    assert Cache(made, ABOUT).nbytes == sum(p.stat().st_size for p in made.glob("shard*"))


SIZE = r"shard-00001.safetensors has \d+ bytes, expected \d+: truncated or another's"
HASH = "shard-00001.safetensors is corrupted or another's, its SHA-256 differs"


@pytest.mark.parametrize(
    "harm, error, words",
    [
        (
            lambda file, data: file.unlink(),
            FileNotFoundError,
            "shard-00001.safetensors is missing; kdlab.teachers.cache.build",
        ),
        (lambda file, data: file.write_bytes(data[:-1]), ValueError, SIZE),
        (lambda file, data: save_file({"number": torch.arange(3)}, file), ValueError, SIZE),
        (lambda file, data: file.write_bytes(data[:-1] + bytes([data[-1] ^ 1])), ValueError, HASH),
        (
            lambda file, data: shutil.copy(file.with_name("shard-00000.safetensors"), file),
            ValueError,
            HASH,
        ),
    ],
)
def test_a_damaged_shard_is_told_and_made_again(harm, error, words, made):
    before = files(made)
    harm(made / "shard-00001.safetensors", before["shard-00001.safetensors"])
    with pytest.raises(error, match=words):
        held = Cache(made, ABOUT)
        assert words == HASH  # the others are told on opening
        assert held[["s0", "s9"]]["number"].tolist() == [0, 9]
        held[["s0", "s3"]]
    build(made, IDS, teacher := Teacher(), ABOUT, shard=3)
    assert teacher.calls == [IDS[3:6]] and files(made) == before


def test_two_settings_never_mix(made):
    before = files(made)
    words = (
        "more is 'not set' there, 1 here; teacher is 'abc' there, 'not set' here; temperature is"
        " 2.0 there, 4.0"
    )
    other = {"temperature": 4.0, "layers": [1, 2], "more": 1}
    for act in (
        lambda: Cache(made, other),
        lambda: build(made, IDS, Teacher(0, pytest.fail), other, shard=3),
    ):
        with pytest.raises(ValueError, match=words):
            act()
    for ids, shard, key in ((IDS[::-1], 3, "ids"), (IDS, 4, "shard"), (IDS[:9], 3, "ids', 'count")):
        with pytest.raises(
            ValueError,
            match=rf"\['{key}'\] must be those of .* which holds 10 ids by 3 a shard, got "
            rf"{len(ids)} by {shard}; take another directory",
        ):
            build(made, ids, Teacher(0, pytest.fail), ABOUT, shard)
    assert files(made) == before


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text[:50],
        lambda text: "[]",
        lambda text: '{"about": {}}',
        lambda text: text.replace("abc", "abd"),
        lambda text: text.replace('"s3", "s4"', '"s4", "s3"'),
        lambda text: text.replace('"bfloat16"', '"float16"'),
    ],
)
def test_a_manifest_of_another_hand_is_refused(change, made):
    file = made / "manifest.json"
    assert change(text := file.read_text()) != text
    file.write_text(change(text))
    before = files(made)
    for act in (lambda: Cache(made, ABOUT), lambda: build(made, IDS, Teacher(), ABOUT, shard=3)):
        with pytest.raises(
            ValueError, match="manifest.json is no manifest of a cache, or was changed since"
        ):
            act()
    assert files(made) == before


def test_a_directory_with_other_files_is_refused(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(
        ValueError, match=r"holds \['thesis.txt'\]; expected a new directory or a cache"
    ):
        build(tmp_path, IDS, Teacher(), ABOUT)
    with pytest.raises(
        FileNotFoundError,
        match="manifest.json is missing; expected a directory that kdlab.teachers.cache",
    ):
        Cache(tmp_path, ABOUT)
    assert files(tmp_path) == {"thesis.txt": b"mine"}
