"""A teacher run once: rows on disk by the id of their sample, safe against crash and mix-up.

A cache is a directory: safetensors files of at most `shard` rows, and manifest.json, which says
what they were made from, which ids they hold, and the size and SHA-256 of each. Every file is
written beside its place and then moved there, so that it is whole or not there at all; nothing is
unpickled."""

import hashlib
import json
import os
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn

MANIFEST, FORMAT, LOCK = "manifest.json", "kdlab cache 1", ".lock"
LENGTHS = (
    ".lengths"  # what the lengths of rows of any length are called, beside the rows themselves
)


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
    full disk leaves the shards before it. Where another process or thread builds in the directory,
    this one says so in a warning, waits for its end, and finds its shards there.

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
    plan = {"about": _plain("build", about), "ids": _digest(ids), "count": len(ids), "shard": shard}
    held = _held(path, plan)
    whole = len(held["shards"]) == len(range(0, len(ids), shard)) and not _leftovers(path)
    # one that is finished is only read: any number of processes at once, and where nobody may write
    if not whole or not all(_sound(path, record) for record in held["shards"]):
        path.mkdir(parents=True, exist_ok=True)
        with _alone(path):
            _fill(path, ids, produce, plan)
    return Cache(path, about)


def _fill(path, ids, produce, plan):
    """Compute and write the shards that are not there."""
    held = _held(path, plan)  # once more: another may have built here meanwhile
    for left in _leftovers(path):
        left.unlink()
    kept = {record["file"]: record for record in held["shards"] if _sound(path, record)}
    rows = held["rows"] if kept else None
    if not (path / MANIFEST).exists():
        # first of all files: from here on the directory is ours
        write_manifest(path, plan, rows, kept)
    for number, first in enumerate(range(0, len(ids), plan["shard"])):
        file, part = f"shard-{number:05d}.safetensors", ids[first : first + plan["shard"]]
        if file in kept:
            continue
        with torch.no_grad():
            tensors, shapes = _checked(produce(list(part)), len(part))
        if rows not in (None, shapes):
            raise ValueError(
                f"build: produce must return the same rows each time, {rows}, got {shapes} for"
                f" {file}"
            )
        rows, data = shapes, save(tensors)
        _write(path / file, data)
        kept[file] = {
            "file": file,
            "bytes": len(data),
            "sha256": hashlib.sha256(data).hexdigest(),
            "ids": part,
        }
        write_manifest(path, plan, rows, kept)


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
        held = _read(self.path, _plain("Cache", about), "Cache")
        self._rows, self._shards = held["rows"], held["shards"]
        self.about, self.names = held["about"], list(held["rows"] or ())
        self.ids = [i for record in self._shards for i in record["ids"]]
        if len(self.ids) < held["count"]:
            raise ValueError(
                f"Cache: {self.path} is unfinished, {len(self.ids)} of {held['count']} rows; call "
                "kdlab.teachers.cache.build again, which goes on from there"
            )
        for record in self._shards:
            _check_file(self.path, record, whole=False)
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
            _check_file(self.path, self._shards[number])
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


def _digest(value):
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _held(path, plan):
    """What the directory holds of a plan; or the error that says what it holds instead."""
    # listed before the manifest is looked for: in a build that is first of all files, and it stays
    others = [p.name for p in path.iterdir()] if path.exists() else []
    if not (path / MANIFEST).exists():
        if others := sorted({*others} - {LOCK, MANIFEST + ".partial"}):
            raise ValueError(
                f"build: path {path} holds {others[:4]}; expected a new directory or a cache"
            )
        return {"rows": None, "shards": []}
    held = _read(path, plan["about"], "build")
    if changed := [key for key in ("ids", "count", "shard") if held[key] != plan[key]]:
        raise ValueError(
            f"build: {changed} must be those of {path}, which holds {held['count']} "
            f"ids by {held['shard']} a shard, got {plan['count']} by {plan['shard']}; "
            "take another directory"
        )
    return held


def _leftovers(path):
    return [*path.glob("shard-*.partial"), *path.glob(MANIFEST + ".partial")]


@contextmanager
def _alone(path):
    """Keep other builds out of a directory, by a lock that the system takes from the dead."""
    lock = FileLock(path / LOCK)
    try:
        try:
            lock.acquire(timeout=0)
        except Timeout:
            warnings.warn(
                f"build: another build is at work in {path}; waiting for its end", stacklevel=4
            )
            lock.acquire()
    except OSError as error:  # nobody may write here, or the disk knows no locks
        warnings.warn(
            f"build: {path} can't be locked ({error}); let one process build there at a time",
            stacklevel=4,
        )
        lock = None
    try:
        yield
    finally:
        if lock:
            # while it is held: who waits for it sees that it is gone and makes a new one
            with suppress(OSError):  # Windows removes no open file; then it stays, and does no harm
                (path / LOCK).unlink()
            lock.release()


def _checked(found, n):
    """What produce returned, on the CPU and each in memory of its own, with {name: [type, shape of
    a row]}, None for a length; or the error that says what came."""
    if not isinstance(found, dict) or not found or not all(map(_are_rows, found.values())):
        raise TypeError(
            "build: produce must return a dictionary of tensors, or of lists of tensors, got "
            f"{type(found).__name__}"
        )
    if wrong := {
        name: tuple(rows.shape) if torch.is_tensor(rows) else f"a list of {len(rows)}"
        for name, rows in found.items()
        if (rows.shape[:1] != (n,) if torch.is_tensor(rows) else len(rows) != n)
    }:
        raise ValueError(
            f"build: produce must return one row for each of the {n} ids it is given, got {wrong}"
        )
    tensors, shapes = {}, {}
    for name, rows in found.items():
        shape: list = []
        if not torch.is_tensor(rows):
            kinds = {(row.dtype, tuple(row.shape[1:])) for row in rows if row.ndim}
            if len(kinds) != 1 or not all(row.ndim for row in rows) or name + LENGTHS in found:
                raise ValueError(
                    f"build: produce must return rows (L, ...) of one type that differ in L alone, "
                    f"got for {name!r} {sorted({(str(r.dtype), tuple(r.shape)) for r in rows})}"
                )
            shape, tensors[name + LENGTHS] = [None], torch.tensor([len(row) for row in rows])
            rows = torch.cat([row.detach().cpu() for row in rows])
        tensors[name] = rows.detach().cpu().clone(memory_format=torch.contiguous_format)
        shapes[name] = [str(rows.dtype).removeprefix("torch."), [*shape, *rows.shape[1:]]]
    return tensors, shapes


def _are_rows(rows):
    return torch.is_tensor(rows) or (
        isinstance(rows, (list, tuple)) and bool(rows) and all(map(torch.is_tensor, rows))
    )


def _write(file, data):
    """Write bytes to a file beside it, then move that into its place in one step."""
    partial = file.with_name(file.name + ".partial")
    try:
        with open(partial, "wb") as out:
            out.write(data)
            out.flush()
            os.fsync(out.fileno())
        os.replace(partial, file)
    finally:
        partial.unlink(missing_ok=True)


def write_manifest(path, plan, rows, kept):
    """Say in the directory what the cache is made of and which shards are there."""
    held = {"format": FORMAT, **plan, "rows": rows, "shards": [kept[file] for file in sorted(kept)]}
    _write(path / MANIFEST, json.dumps(held | {"key": _digest(held)}).encode())


def _read(path, about, name):
    """The manifest of a cache made with these settings; or the error that says what the file is
    instead."""
    file = path / MANIFEST
    if not file.is_file():
        raise FileNotFoundError(
            f"{name}: {file} is missing; expected a directory that kdlab.teachers.cache.build"
            " filled"
        )
    try:
        held = json.loads(file.read_bytes())
        whole = held.pop("key") == _digest(held) and held["format"] == FORMAT
    except (ValueError, KeyError, TypeError, AttributeError):
        whole = False
    if not whole:
        raise ValueError(
            f"{name}: {file} is no manifest of a cache, or was changed since it was written"
        )
    here, there = about, held["about"]
    if differ := [
        k for k in sorted(here | there) if k not in here or k not in there or here[k] != there[k]
    ]:
        values = "; ".join(
            f"{k} is {there.get(k, 'not set')!r} there, {here.get(k, 'not set')!r} here"
            for k in differ
        )
        raise ValueError(f"{name}: about must be what {path} was made with, but {values}")
    return held


def _check_file(path, record, whole=True):
    """Raise the error that says what is wrong with a shard's file; whole: also by its SHA-256."""
    file = path / record["file"]
    if not file.is_file():
        raise FileNotFoundError(
            f"Cache: {file} is missing; kdlab.teachers.cache.build makes it again"
        )
    if (size := file.stat().st_size) != record["bytes"]:
        raise ValueError(
            f"Cache: {file} has {size} bytes, expected {record['bytes']}: truncated or another's; "
            "kdlab.teachers.cache.build makes it again"
        )
    if not whole:
        return
    with open(file, "rb") as data:
        if hashlib.file_digest(data, "sha256").hexdigest() != record["sha256"]:
            raise ValueError(
                f"Cache: {file} is corrupted or another's, its SHA-256 differs; "
                "kdlab.teachers.cache.build makes it again"
            )


def _sound(path, record):
    """True where a shard's file is as it was written."""
    try:
        _check_file(path, record)
    except (FileNotFoundError, ValueError):
        return False
    return True
