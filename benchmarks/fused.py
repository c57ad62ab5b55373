"""A forward KL over a large vocabulary: full logits against kdlab's chunks, Liger's and TRL's, in
time and memory.

    python benchmarks/fused.py [--repeats 5]

1,024 tokens, student width 256, teacher width 512, float32, no biases, every token counts: value
and gradients of the student's hidden states and head. Each row is a fresh process: its peak is the
most memory that the first call took beyond what was there before, its time the smallest of several
calls. Ratios are to kdlab's `TokenLoss` on full logits, measured in the same run, on the CPU. V
goes from 512 up: the table says from which vocabulary on the chunks pay. Writes results/fused.csv,
a row an arm for the hardware it ran on; other hardware's rows stay."""

import kdlab as kd  # before torch: it sets how OpenMP's threads wait

import argparse
import csv
import json
import platform
import resource
import subprocess
import sys
import time
from pathlib import Path

import psutil
import torch
from torch import nn
from torch.nn import functional as F

from kdlab.losses.fused import linear_divergence
from kdlab.losses.kd import TokenLoss

TOKENS, H, H_TEACHER, VOCABULARIES = 1024, 256, 512, (512, 2048, 8192, 32768)
RESULTS = Path(__file__).parent / "results" / "fused.csv"


def full(h, head, h_teacher, teacher, y):
    with torch.no_grad():
        z = teacher(h_teacher)
    return TokenLoss()(head(h), z, y)


def kl_div(h, head, h_teacher, teacher, y):
    with torch.no_grad():
        log_p = F.log_softmax(teacher(h_teacher), -1)
    return F.kl_div(F.log_softmax(head(h), -1), log_p, log_target=True, reduction="batchmean")


def liger(h, head, h_teacher, teacher, y):
    from liger_kernel.chunked_loss import LigerFusedLinearJSDLoss

    loss = LigerFusedLinearJSDLoss(
        weight_hard_loss=0.0, weight_soft_loss=1.0, beta=0.0, compiled=False, chunk_size=128
    )
    return loss(h, head.weight, h_teacher, teacher.weight, y)


def trl(h, head, h_teacher, teacher, y):
    from trl.trainer.distillation_trainer import _chunked_divergence_loss

    return _chunked_divergence_loss(
        h[None], h_teacher[None], head.weight, teacher.weight, (y >= 0)[None], 0.0
    )[0]


ARMS = {
    "full logits, TokenLoss": full,
    "full logits, kl_div": kl_div,
    "kdlab": linear_divergence,
    "Liger, not compiled": liger,
    "TRL": trl,
}


def example(V, tokens=TOKENS):
    torch.manual_seed(0)
    head, teacher = nn.Linear(H, V, bias=False), nn.Linear(H_TEACHER, V, bias=False)
    return (
        torch.randn(tokens, H, requires_grad=True),
        head,
        torch.randn(tokens, H_TEACHER),
        teacher.requires_grad_(False),
        torch.randint(V, (tokens,)),
    )


def measure(arm, V, repeats):
    """What one process found: {"seconds", "peak_MB", "loss", "gradient"}, or {"note"} where the arm
    does not run."""
    try:
        # its imports and the libraries' own buffers are not the loss's
        arm(*example(64, 4)).backward()
    except Exception as error:
        return {"note": f"does not run here: {type(error).__name__}: {error}".splitlines()[0]}
    case, times = example(V), []
    before = psutil.Process().memory_info().rss
    for i in range(1 + repeats):
        case[0].grad = case[1].weight.grad = None
        began = time.perf_counter()
        loss = arm(*case)
        loss.backward()
        times.append(time.perf_counter() - began)
        if i == 0:
            unit = 1 if sys.platform == "darwin" else 1024
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit - before
    gradient = case[0].grad.norm().item() + case[1].weight.grad.norm().item()
    return {
        "seconds": min(times[1:]),
        "peak_MB": peak / 2**20,
        "loss": loss.item(),
        "gradient": gradient,
        "note": "",
    }


def row(arm, V, found, base):
    head = {"arm": arm, "tokens": TOKENS, "V": V, "H": H, "H_teacher": H_TEACHER}
    if found["note"]:
        return (
            head
            | dict.fromkeys(["seconds", "time_ratio", "peak_MB", "memory_ratio", "difference"], "")
            | found
        )
    difference = max(abs(found[k] - base[k]) / base[k] for k in ("loss", "gradient"))
    return head | {
        "seconds": f"{found['seconds']:.4f}",
        "time_ratio": f"{found['seconds'] / base['seconds']:.2f}",
        "peak_MB": f"{found['peak_MB']:.0f}",
        "memory_ratio": f"{found['peak_MB'] / base['peak_MB']:.2f}",
        "difference": f"{difference:.0e}",
        "note": "",
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "--one", nargs=2, metavar=("ARM", "V"), help="measure one row in this process"
    )
    options = parser.parse_args()
    lab = kd.setup(seed=0)
    if options.one:
        print(json.dumps(measure(ARMS[options.one[0]], int(options.one[1]), options.repeats)))
        return
    rows, hardware = [], f"CPU, {lab.threads} thread{'s' if lab.threads > 1 else ''}"
    for V in VOCABULARIES:
        for arm in ARMS if V == VOCABULARIES[-1] else list(ARMS)[:3]:
            job = [
                sys.executable,
                __file__,
                "--repeats",
                str(options.repeats),
                "--one",
                arm,
                str(V),
            ]
            out = subprocess.run(job, stdout=subprocess.PIPE, text=True, check=True).stdout
            found = json.loads(out.splitlines()[-1])
            if arm == "full logits, TokenLoss":
                base = found
            rows.append(
                {
                    "hardware": hardware,
                    "machine": platform.machine(),
                    "torch": torch.__version__.split("+")[0],
                }
                | row(arm, V, found, base)
            )
            print(
                "  ".join(
                    f"{k} {v}"
                    for k, v in rows[-1].items()
                    if k not in ("hardware", "machine", "torch")
                )
            )
    keep = []
    if RESULTS.exists():
        keep = [r for r in csv.DictReader(RESULTS.open()) if r["hardware"] != hardware]
    RESULTS.parent.mkdir(exist_ok=True)
    with RESULTS.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(keep + rows)


if __name__ == "__main__":
    main()
