"""A teacher run once: rows on disk by the id of their sample, safe against crash and mix-up.

A cache is a directory: safetensors files of at most `shard` rows, and manifest.json, which says
what they were made from, which ids they hold, and the size and SHA-256 of each. Every file is
written beside its place and then moved there, so that it is whole or not there at all; nothing is
unpickled."""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from kdlab.teachers.cache_build import fill, leftovers
from kdlab.teachers.cache_files import LENGTHS, begun, check_file, digest, read_manifest, sound


def build(
    path: str | os.PathLike,
    ids: Sequence[str | int] | Tensor,
    produce: Callable[[list], dict[str, Tensor]],
    about: dict[str, Any],
    shard: int = 1024,
) -> "Cache":
    """Compute the rows of every sample and keep them in the directory `path`, or go on where a
    build was interrupted.

    ids: unique strings or whole numbers (a list, array or tensor). produce(list of at most `shard`
    ids) → {name: tensor (len, ...)}, called under no_grad, each row of the same shape; or, where
    rows have lengths of their own, {name: list of len tensors (L, ...)}, stored without padding. It
    must depend on the ids alone. about: {setting: JSON value}, all that the rows depend on: the
    teacher's and the data's fingerprint, temperature, k. → `Cache`. Whole shards that are there are
    verified and kept, the others computed. ValueError, with nothing touched, where the directory
    holds other settings (it names them), other ids or other files. An exception in `produce` or a
    full disk leaves the shards before it.

    Several processes or threads that call this with the same arguments share the work, as ranks of
    a launch do: each takes the next shard that nobody has, and at the end waits for those that
    others have, or makes them where their builder has died. So `shard` is also the piece of work
    that one of them takes. On a disk without locks it warns, and one alone may build.

    >>> import tempfile
    >>> teacher = torch.nn.Linear(1, 3)
    >>> def produce(ids):
    ...     return {"logits": teacher(torch.ones(len(ids), 1))}
    >>> about = {"teacher": fingerprint_model(teacher)}
    >>> with tempfile.TemporaryDirectory() as where:
    ...     cache = build(where, ["a", "b", "c"], produce, about, shard=2)
    ...     cache[["c", "a"]]["logits"].shape
    torch.Size([2, 3])
    """
    path, ids = Path(path), _listed("build", ids)
    if not isinstance(shard, int) or shard < 1:
        raise ValueError(f"build: shard must be a whole number of at least 1, got {shard!r}")
    if not ids or len(set(ids)) < len(ids):
        twice = [i for i, times in Counter(ids).items() if times > 1]
        raise ValueError(
            "build: ids must be unique and at least one, got"
            f" {f'{twice[0]!r} twice' if ids else 'none'}"
        )
    plan = {"about": _plain("build", about), "ids": digest(ids), "count": len(ids), "shard": shard}
    shards = begun(path, plan)["shards"]
    damaged = [record["file"] for record in shards if not sound(path, record)]
    missing = len(range(0, len(ids), shard)) - len(shards)
    # one that is finished is only read: any number of processes at once, and where nobody may write
    if missing or damaged or leftovers(path):
        path.mkdir(parents=True, exist_ok=True)
        fill(path, ids, produce, plan, damaged)
    return Cache(path, about)


class Cache:
    """A finished cache, opened: `cache[ids]` → {name: tensor (n, ...)}, the rows in the order asked
    for; of rows that have lengths of their own a list of n tensors (L, ...).

    path: a directory that `build` filled. about: the settings it must have been made with.
    `cache.ids` lists what it holds, `cache.names` what of each, `cache.about` the settings,
    `cache.nbytes` its size on disk. Rows are read from
    memory-mapped files, so that only those asked for take memory. That every file is there in its
    full size is checked on opening, its SHA-256 when it is first read from. FileNotFoundError: no
    cache, or a shard is missing. ValueError: made with other settings, unfinished, truncated,
    corrupted, not ours, or an unknown id; each names the file or the id.

    >>> Cache("nowhere", {})
    Traceback (most recent call last):
    FileNotFoundError: Cache: nowhere/manifest.json is missing; ...
    """

    def __init__(self, path: str | os.PathLike, about: dict[str, Any]) -> None:
        self.path = Path(path)
        held = read_manifest(self.path, _plain("Cache", about), "Cache")
        self._rows, self._shards = held["rows"], held["shards"]
        self.about, self.names = held["about"], list(held["rows"] or ())
        self.ids = [i for record in self._shards for i in record["ids"]]
        if len(self.ids) < held["count"]:
            raise ValueError(
                f"Cache: {self.path} is unfinished, {len(self.ids)} of {held['count']} rows; call "
                "kdlab.teachers.cache.build again, which goes on from there"
            )
        for record in self._shards:
            check_file(self.path, record, whole=False)
        self.nbytes = sum(record["bytes"] for record in self._shards)
        self._places = {
            i: (n, at)
            for n, record in enumerate(self._shards)
            for at, i in enumerate(record["ids"])
        }
        self._opened: dict[int, dict[str, Tensor]] = {}

    def __len__(self):
        return len(self.ids)

    def __getitem__(self, ids):
        ids = _listed("Cache", ids)
        if unknown := [i for i in ids if i not in self._places]:
            raise ValueError(
                f"Cache: ids must be among the {len(self)} of {self.path}, got {unknown[:4]!r},"
                f" which are not (it holds {self.ids[:2]!r} …)"
            )
        place = torch.tensor([self._places[i] for i in ids], dtype=torch.long).view(-1, 2)
        return {
            name: self._ragged(name, place) if shape[:1] == [None] else self._even(name, place)
            for name, (_, shape) in self._rows.items()
        }

    def _even(self, name, place):
        """Rows of one shape, (n, ...), from their places (shard, row)."""
        kind, shape = self._rows[name]
        out = torch.empty(len(place), *shape, dtype=getattr(torch, kind))
        for number in place[:, 0].unique().tolist():
            here = (place[:, 0] == number).nonzero()[:, 0]
            out[here] = self._shard(number)[name][place[here, 1]]
        return out

    def _ragged(self, name, place):
        """Rows of any length, a list of (L, ...)."""
        found = []
        for number, at in place.tolist():
            shard = self._shard(number)
            ends = shard[name + LENGTHS]
            found.append(shard[name][ends[at - 1] if at else 0 : ends[at]].clone())
        return found

    def _shard(self, number):
        if number not in self._opened:
            check_file(self.path, self._shards[number])
            with safe_open(self.path / self._shards[number]["file"], "pt") as file:
                # mapped, not read
                opened = {name: file.get_tensor(name) for name in file.keys()}
            for name in opened:  # where each row ends, once
                if name.endswith(LENGTHS) and name not in self._rows:
                    opened[name] = opened[name].cumsum(0)
            self._opened[number] = opened
        return self._opened[number]


def fingerprint_tensors(tensors: dict[str, Tensor]) -> str:
    """Sixteen hex digits that change with any name, type, shape or number: of {name: tensor}, for
    example token ids.

    >>> x = torch.zeros(2, 3)
    >>> fingerprint_tensors({"x": x}) == fingerprint_tensors({"x": x.view(3, 2)})
    False
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(
            tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        )
    return digest.hexdigest()[:16]


def fingerprint_model(model: nn.Module) -> str:
    """Sixteen hex digits of a model's weights and buffers, its state dict: SHA-256 of names, types,
    shapes, numbers.

    What is no weight (a rope's base, a norm's epsilon, the prompt) isn't in it: write that into
    `about` too.

    >>> model = torch.nn.Linear(2, 2)
    >>> before = fingerprint_model(model)
    >>> _ = model.bias.data.add_(1)
    >>> fingerprint_model(model) == before
    False
    """
    return fingerprint_tensors(model.state_dict())


def _listed(name, ids):
    ids = ids.tolist() if hasattr(ids, "tolist") else ids
    if isinstance(ids, (str, bytes)) or not hasattr(ids, "__iter__"):
        raise TypeError(f"{name}: ids must be a list of strings or whole numbers, got {ids!r}")
    ids = list(ids)
    if wrong := [i for i in ids if not isinstance(i, (str, int)) or isinstance(i, bool)]:
        raise TypeError(f"{name}: ids must be strings or whole numbers, got {wrong[0]!r}")
    return ids


def _plain(name, about):
    """The settings as JSON gives them back, so that a tuple equals the list it became."""
    if not isinstance(about, dict):
        raise TypeError(
            f"{name}: about must be a dictionary of settings, got {type(about).__name__}"
        )
    try:
        return json.loads(json.dumps(about, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"{name}: about must hold JSON values (numbers, strings, lists): {error}"
        ) from None
