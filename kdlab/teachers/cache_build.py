"""Filling a cache, by one builder or by many: each takes the next shard that nobody has.

A builder is a process or a thread. It computes a shard under that shard's lock, and reads and
changes the manifest under the directory's, which it holds for no longer than that. The system takes
a lock from who dies, so that a shard is never lost with its builder."""

import hashlib
import os
import time
import warnings
from contextlib import contextmanager, suppress

import torch
from filelock import FileLock, Timeout
from safetensors.torch import save

from kdlab.teachers.cache_files import (
    LENGTHS,
    LOCK,
    MANIFEST,
    PARTIAL,
    begun,
    sound,
    write,
    write_manifest,
)

SOON, LATE = 0.02, 0.5  # seconds until a builder that waits for others looks again


def fill(path, ids, produce, plan, damaged):
    """Compute and write the shards that are not there, together with whoever else does.

    damaged: the files whose bytes were not those of the manifest."""
    work = _Work(path, ids, plan)
    try:
        work.begin(damaged)
        while (file := work.take()) is not None:
            try:
                part = work.parts[file]
                with torch.no_grad():
                    tensors, rows = _checked(produce(list(part)), len(part))
                work.keep(file, rows, save(tensors))
            finally:
                work.give_back(file)
    finally:
        work.leave()


class _Work:
    """A cache that is being filled, as one builder sees it: what is there, and what to do next."""

    def __init__(self, path, ids, plan):
        self.path, self.plan, size = path, plan, plan["shard"]
        self.parts = {
            f"shard-{number:05d}.safetensors": ids[first : first + size]
            for number, first in enumerate(range(0, len(ids), size))
        }
        self.locks, self._seen, self._read = {}, None, None
        self.shared = True
        try:
            with self.alone():
                pass
        except OSError as error:  # nobody may write here, or the disk knows no locks
            self.shared = False
            warnings.warn(
                f"build: {path} can't be locked ({error}); let one process build there at a time",
                stacklevel=4,
            )

    @contextmanager
    def alone(self):
        """No other builder reads or changes the manifest, or takes a shard or gives one back."""
        if not self.shared:
            yield
            return
        with FileLock(self.path / LOCK).acquire(poll_interval=SOON):
            yield

    def there(self):
        """{file: its record} of the manifest, and what a row is; read anew where it has changed."""
        try:
            with open(self.path / MANIFEST, "rb") as file:  # a disk of the net is asked by opening
                about = os.fstat(file.fileno())
            seen = about.st_ino, about.st_mtime_ns, about.st_size
        except FileNotFoundError:
            seen = None
        if seen is None or seen != self._seen:
            self._read, self._seen = begun(self.path, self.plan), seen
        shards = {record["file"]: record for record in self._read["shards"]}
        return shards, self._read["rows"] if shards else None

    def begin(self, damaged):
        """Make the directory ours, and take damaged shards out of what is there."""
        with self.alone():
            shards, rows = self.there()
            # looked at once more: another builder may have made them again meanwhile
            gone = [f for f in damaged if f in shards and not sound(self.path, shards[f])]
            if gone or self._seen is None:  # the manifest is first of all files
                kept = {file: record for file, record in shards.items() if file not in gone}
                write_manifest(self.path, self.plan, rows if kept else None, kept)

    def take(self):
        """A shard to make, which no other takes until it is given back; None where all are there.

        Where others have all that is left this waits, for one of them may die."""
        pause = SOON
        while True:
            with self.alone():
                shards, _ = self.there()
                missing = [file for file in self.parts if file not in shards]
                free = next(filter(self._held, missing), None)
                if not missing:
                    self._clear()
            if free is not None or not missing:
                return free
            time.sleep(pause)
            pause = min(2 * pause, LATE)

    def _held(self, file):
        """True where a shard's lock is ours from now on."""
        if self.shared:
            lock = FileLock(self._lock(file))
            try:
                lock.acquire(timeout=0)
            except Timeout:
                return False
            self.locks[file] = lock
        return True

    def _lock(self, file):
        return self.path / f".{file}{LOCK}"

    def keep(self, file, rows, data):
        """Write a shard that was taken, and say in the manifest that it is there."""
        write(self.path / file, data)
        record = {
            "file": file,
            "bytes": len(data),
            "sha256": hashlib.sha256(data).hexdigest(),
            "ids": self.parts[file],
        }
        with self.alone():
            shards, before = self.there()
            if before not in (None, rows):
                (self.path / file).unlink()
                raise ValueError(
                    f"build: produce must return the same rows each time, {before}, got {rows} for"
                    f" {file}"
                )
            write_manifest(self.path, self.plan, rows, shards | {file: record})

    def give_back(self, file):
        """Let others take a shard, where it is not there now."""
        if (lock := self.locks.pop(file, None)) is None:
            return
        try:
            # alone: nobody opens the file just before it goes, and has a lock that no other sees
            with suppress(OSError), self.alone():
                _remove(self._lock(file))
        finally:
            lock.release()

    def _clear(self):
        """Take away what the dead have left: where all shards are there, nobody is at work."""
        for file in [*leftovers(self.path), *self.path.glob(f".shard-*{LOCK}")]:
            _remove(file)

    def leave(self):
        """Take the directory's lock away, as this builder goes."""
        if self.shared:
            with suppress(OSError), self.alone():  # a full disk was told already
                # while it is held: who waits for it sees that it is gone and makes a new one
                _remove(self.path / LOCK)


def leftovers(path):
    """Half files in a directory, of builders at work or of those that died."""
    return [*path.glob("shard-*" + PARTIAL), *path.glob(MANIFEST + PARTIAL)]


def _remove(file):
    with suppress(OSError):  # Windows removes no open file; then it stays, and does no harm
        file.unlink()


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
