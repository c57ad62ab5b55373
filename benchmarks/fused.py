"""A forward KL over a large vocabulary: full logits against chunks, kdlab's, Liger's and TRL's, in
time and memory.

    python benchmarks/fused.py [--rounds 3]

On a CPU 1,024 tokens, student width 256, teacher width 512, float32; on a GPU 8,192 tokens, widths
2,048 and 4,096, bfloat16 and float32. No biases, every token counts: value and gradients of the
student's hidden states and head. Each arm is a fresh process: its peak is the most memory that the
first call took beyond what was there before, its time the smallest of several calls. The arms take
turns, and the quickest of several rounds counts; `spread` is the slowest round's time over it.
`products` are the four matrix products alone, which no arm can do without. best_peer_ratio: time
over that of the quickest arm that is not kdlab's; its memory_ratio is to that arm too. V goes from
512 up on a CPU: the table says from which vocabulary on the chunks pay. Writes results/fused.csv, a
row an arm for the hardware it ran on; other hardware's rows stay."""

import kdlab as kd  # before torch: it sets how OpenMP's threads wait

import argparse
import functools
import itertools
import json
import math
import resource
import subprocess
import sys
import time
from pathlib import Path

import psutil
import torch
from table import hardware, ratio, write
from torch import nn
from torch.nn import functional as F

from kdlab.losses.fused import linear_divergence
from kdlab.losses.kd import TokenLoss

CUDA = torch.cuda.is_available()
TOKENS, H, H_TEACHER = (8192, 2048, 4096) if CUDA else (1024, 256, 512)
VOCABULARIES = (128256,) if CUDA else (512, 2048, 8192, 32768)
DTYPES = ("bfloat16", "float32") if CUDA else ("float32",)
RESULTS = Path(__file__).parent / "results" / "fused.csv"


def products(h, head, h_teacher, teacher, y):
    """What is left when the loss costs nothing: both heads' logits, and the way back."""
    z, _ = h.detach() @ head.weight.detach().T, h_teacher @ teacher.weight.T
    h.grad, head.weight.grad = z @ head.weight.detach(), z.T @ h.detach()


def full(h, head, h_teacher, teacher, y):
    with torch.no_grad():
        z = teacher(h_teacher)
    return TokenLoss()(head(h), z, y)


def kl_div(h, head, h_teacher, teacher, y):
    with torch.no_grad():
        log_p = F.log_softmax(teacher(h_teacher).float(), -1)
    log_q = F.log_softmax(head(h).float(), -1)
    return F.kl_div(log_q, log_p, log_target=True, reduction="batchmean")


def liger(h, head, h_teacher, teacher, y, compiled=False):
    from liger_kernel.chunked_loss import LigerFusedLinearJSDLoss

    loss = LigerFusedLinearJSDLoss(
        weight_hard_loss=0.0,
        weight_soft_loss=1.0,
        beta=0.0,
        compiled=compiled,
        chunk_size=1024 if CUDA else 128,
    )
    return loss(h, head.weight, h_teacher, teacher.weight, y)


def trl(h, head, h_teacher, teacher, y):
    from trl.trainer.distillation_trainer import _chunked_divergence_loss

    return _chunked_divergence_loss(
        h[None], h_teacher[None], head.weight, teacher.weight, (y >= 0)[None], 0.0
    )[0]


ARMS = {
    "products": products,
    "full logits, TokenLoss": full,
    "full logits, kl_div": kl_div,
    "kdlab": linear_divergence,
    "Liger, not compiled": liger,
    "Liger, compiled": functools.partial(liger, compiled=True),
    "TRL": trl,
}
OURS = ("products", "full logits, TokenLoss", "kdlab")
FULL = "full logits, kl_div"  # whose loss and gradient the others must have


def example(V, dtype="float32", tokens=TOKENS):
    torch.manual_seed(0)
    where = {"dtype": getattr(torch, dtype), "device": "cuda" if CUDA else "cpu"}
    head, teacher = (nn.Linear(width, V, bias=False, **where) for width in (H, H_TEACHER))
    return (
        torch.randn(tokens, H, requires_grad=True, **where),
        head,
        torch.randn(tokens, H_TEACHER, **where),
        teacher.requires_grad_(False),
        torch.randint(V, (tokens,), device=where["device"]),
    )


def once(arm, case):
    """(seconds, the loss) of one call forward and backward."""
    case[0].grad = case[1].weight.grad = None
    began = time.perf_counter()
    loss = arm(*case)
    if loss is not None:
        loss.backward()
    if CUDA:
        torch.cuda.synchronize()
    return time.perf_counter() - began, math.nan if loss is None else loss.item()


def measure(arm, V, dtype, repeats):
    """What one process found: {"seconds", "peak_MB", "loss", "gradient"}, or {"note"} where the arm
    does not run."""
    try:
        # its imports and the libraries' own buffers are not the loss's
        once(arm, example(128, dtype, 4))
    except Exception as error:
        return {"note": f"does not run here: {type(error).__name__}: {error}".splitlines()[0]}
    case, unit = example(V, dtype), 1 if sys.platform == "darwin" else 1024
    if CUDA:
        torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated() if CUDA else psutil.Process().memory_info().rss
    once(arm, case)
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    peak = (torch.cuda.max_memory_allocated() if CUDA else held) - before
    times = [once(arm, case) for _ in range(repeats)]
    gradient = case[0].grad.float().norm().item() + case[1].weight.grad.float().norm().item()
    return {
        "seconds": min(seconds for seconds, _ in times),
        "peak_MB": peak / 2**20,
        "loss": times[-1][1],
        "gradient": gradient,
        "note": "",
    }


def best(rounds):
    """The quickest round, and how much slower the slowest was."""
    if rounds[0]["note"]:
        return rounds[0]
    found = min(rounds, key=lambda r: r["seconds"])
    return found | {"spread": max(r["seconds"] for r in rounds) / found["seconds"]}


def table_rows(where, V, dtype, found):
    """The rows of one vocabulary: each arm against the best peer, and the products."""
    peers = {arm: f for arm, f in found.items() if arm not in OURS and not f["note"]}
    peer = min(peers.values(), key=lambda f: f["seconds"], default={})
    for arm, one in found.items():
        told = "" if one["note"] else f"{one['seconds']:.4f}"
        far = ""
        if not one["note"] and arm != "products":
            keys = ("loss", "gradient")
            far = f"{max(abs(one[k] - found[FULL][k]) / found[FULL][k] for k in keys):.0e}"
        yield where | {
            "arm": arm,
            "dtype": dtype,
            "tokens": TOKENS,
            "V": V,
            "H": H,
            "H_teacher": H_TEACHER,
            "seconds": told,
            "products_ratio": ratio(one, found["products"], "seconds"),
            "best_peer_ratio": ratio(one, peer, "seconds"),
            "peak_MB": "" if one["note"] else f"{one['peak_MB']:.0f}",
            "memory_ratio": ratio(one, peer, "peak_MB"),
            "spread": "" if one["note"] else f"{one['spread']:.2f}",
            "difference": far,
            "note": one["note"],
        }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--one", nargs=3, metavar=("ARM", "V", "DTYPE"), help="measure one arm in this process"
    )
    options = parser.parse_args()
    lab = kd.setup(seed=0)
    if options.one:
        arm, V, dtype = options.one
        print(json.dumps(measure(ARMS[arm], int(V), dtype, options.repeats)))
        return
    rows = []
    for dtype, V in itertools.product(DTYPES, VOCABULARIES):
        rounds = {arm: [] for arm in ARMS}
        for _, (arm, told) in itertools.product(range(options.rounds), rounds.items()):
            job = [sys.executable, __file__, "--repeats", str(options.repeats)]
            job += ["--one", arm, str(V), dtype]
            out = subprocess.run(job, stdout=subprocess.PIPE, text=True, check=True).stdout
            told.append(json.loads(out.splitlines()[-1]))
        found = {arm: best(told) for arm, told in rounds.items()}
        rows += table_rows(hardware(lab), V, dtype, found)
    write(RESULTS, rows)


if __name__ == "__main__":
    main()
