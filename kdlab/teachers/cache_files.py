"""What a cache is on disk: a manifest and shards, each file whole or not there at all.

manifest.json says what the rows were made from, which ids each shard holds, and its size and
SHA-256. A file is written beside its place and then moved there."""

import hashlib
import json
import os

MANIFEST, FORMAT = "manifest.json", "kdlab cache 1"
LOCK, PARTIAL = ".lock", ".partial"
# what the lengths of rows of any length are called, beside the rows themselves
LENGTHS = ".lengths"


def digest(value):
    """SHA-256 of a JSON value, the same for the same settings in any order."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def write(file, data):
    """Write bytes to a file beside it, then move that into its place in one step."""
    partial = file.with_name(file.name + PARTIAL)
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
    write(path / MANIFEST, json.dumps(held | {"key": digest(held)}).encode())


def read_manifest(path, about, name):
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
        whole = held.pop("key") == digest(held) and held["format"] == FORMAT
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


def begun(path, plan):
    """What the directory holds of a plan; or the error that says what it holds instead."""
    # listed before the manifest is looked for: in a build that is first of all files, and it stays
    others = [p.name for p in path.iterdir()] if path.exists() else []
    if not (path / MANIFEST).exists():
        if others := sorted({*others} - {LOCK, MANIFEST + PARTIAL}):
            raise ValueError(
                f"build: path {path} holds {others[:4]}; expected a new directory or a cache"
            )
        return {"rows": None, "shards": []}
    found = read_manifest(path, plan["about"], "build")
    if changed := [key for key in ("ids", "count", "shard") if found[key] != plan[key]]:
        raise ValueError(
            f"build: {changed} must be those of {path}, which holds {found['count']} "
            f"ids by {found['shard']} a shard, got {plan['count']} by {plan['shard']}; "
            "take another directory"
        )
    return found


def check_file(path, record, whole=True):
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


def sound(path, record):
    """True where a shard's file is as it was written."""
    try:
        check_file(path, record)
    except (FileNotFoundError, ValueError):
        return False
    return True
