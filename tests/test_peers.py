"""Other libraries' losses beside kdlab's: equal in value and gradient once the table of conventions
has translated."""

import inspect
import json
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from kdlab import KDLoss, forward_kl, jsd, reverse_kl, skew_forward_kl, skew_reverse_kl
from kdlab.data.tokenizers import align
from kdlab.evidence.metrics import entropy
from kdlab.losses.conventions import conventions
from kdlab.losses.features import attention_transfer, rkd_angle, rkd_distance, similarity
from kdlab.losses.kd import TokenLoss, next_token
from kdlab.losses.uld import mask_padding, uld

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")  # no warning that its trainer may move
CLASSES = 11


def gkd():
    return pytest.importorskip("trl.experimental.gkd", reason="needs the extra peers").GKDTrainer


def liger(**options):
    """Liger's chunked loss, not compiled, on logits: a head that is the identity gives back its
    input."""
    fused = pytest.importorskip(
        "liger_kernel.chunked_loss", reason="needs the extra peers"
    ).LigerFusedLinearJSDLoss
    loss, head = fused(compiled=False, chunk_size=3, **options), torch.eye(CLASSES)
    return lambda s, t, y: loss(
        s.flatten(0, 1), head[: s.shape[-1], : s.shape[-1]], t.flatten(0, 1), head, y.flatten()
    )


def trl_jsd(s, t, y, T, beta):
    return gkd().generalized_jsd_loss(s, t, y, beta=beta, temperature=T)


def liger_jsd(s, t, y, T, beta):
    return liger(weight_hard_loss=0.0, weight_soft_loss=1.0, beta=beta, temperature=T)(s, t, y)


def torchdistill():
    return pytest.importorskip("torchdistill.losses.mid_level", reason="needs torchdistill")


def at(x):
    """What a module put out, as torchdistill hands it on."""
    return {"here": {"output": x}}


def torchdistill_kd(s, t, y, T, beta):
    # at alpha 0 it leaves out the factor T²; next to 0 the labels weigh nothing
    loss = torchdistill().KDLoss("here", "output", "here", "output", T, alpha=1e-12, beta=1.0)
    return loss(at(s.flatten(0, 1)), at(t.flatten(0, 1)), y.flatten().clamp_min(0))


# what is not installed here is written down as it was read, at the version that the table names
def torchtune_kl(s, t, y, T, beta):
    x = (t.softmax(-1) * s.log_softmax(-1)).sum(-1).view(-1)
    mask = (y != -100).int().view(-1)
    return -(x * mask).sum() / mask.sum()


def keras_kd(s, t, y, T, beta):
    p, q = ((z / T).softmax(-1).clamp(1e-7, 1) for z in (t, s))
    return (p * (p / q).log()).sum(-1).mean() * T**2


def tutorial_kd(s, t, y, T, beta):
    s, t = s.flatten(0, 1), t.flatten(0, 1)
    p, log_q = (t / T).softmax(-1), (s / T).log_softmax(-1)
    return (p * (p.log() - log_q)).sum() / log_q.size()[0] * T**2


PEERS = {
    ("TRL", "GKDTrainer.generalized_jsd_loss"): trl_jsd,
    ("Liger-Kernel", "LigerFusedLinearJSDLoss"): liger_jsd,
    ("torchtune", "ForwardKLLoss"): torchtune_kl,
    ("torchdistill", "KDLoss"): torchdistill_kd,
    ("Keras", "Distiller"): keras_kd,
    ("PyTorch", "train_knowledge_distillation"): tutorial_kd,
}


def translated(row, s, t, y, T, beta):
    """kdlab's value of the soft term, changed as the row of the table says."""
    mask = y >= 0 if row["mean over"] == "tokens that count" else None
    beta = {"teacher": beta, "no beta": 0.0}[row["beta weighs"]]
    value = jsd(s, t, beta, temperature=T, mask=mask)
    value = value * {"yes": T**2, "no": 1, "no T": 1}[row["T²"]]
    if row["soft term"] == "cross-entropy":
        value = value + entropy(t[mask], T)
    return value / (s.shape[-1] if row["mean over"] == "rows and classes" else 1)


@pytest.fixture
def batch():
    """Logits (2, 7, 11) of a student and a teacher, and labels of which five are −100."""
    make = torch.Generator().manual_seed(0)
    s, t = (torch.randn(2, 7, CLASSES, generator=make) for _ in range(2))
    y = torch.randint(CLASSES, (2, 7), generator=make)
    y[0, :4] = y[1, 5] = -100
    return s.requires_grad_(), 2 * t, y


def assert_same(theirs, ours, s):
    torch.testing.assert_close(theirs.float(), ours.float(), rtol=2e-5, atol=1e-7)
    theirs, ours = (torch.autograd.grad(z, s, retain_graph=True)[0] for z in (theirs, ours))
    assert ours.abs().max() > 1e-4
    torch.testing.assert_close(theirs, ours, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("mode", ["paper", "code"])
def test_attention_transfer_is_torchdistills(mode):
    s, t = torch.randn(5, 3, 4, 4, requires_grad=True), torch.randn(5, 7, 4, 4)
    here = {"path": "here", "io": "output"}
    theirs = torchdistill().ATLoss({"pair": {"student": here, "teacher": here}}, mode)
    assert_same(theirs(at(s), at(t)), attention_transfer(s, t, variant=mode), s)


def test_similarity_is_torchdistills_but_for_the_norm(monkeypatch):
    """Tung and Mori divide a row by its length; there it is by the sum of its absolute values."""
    monkeypatch.setattr(torchdistill(), "normalize", lambda rows, p: F.normalize(rows, p=2, dim=1))
    s, t = torch.randn(6, 3, 2, requires_grad=True), torch.randn(6, 9)
    theirs = torchdistill().SPKDLoss("here", "here", "batchmean")
    assert_same(theirs(at(s), at(t)), similarity(s, t), s)


@pytest.mark.parametrize(
    ("loss", "factors", "counted"),
    [  # theirs is a mean over all places, ours over those that differ
        (rkd_distance, (1.0, 0.0), lambda B: (B - 1) / B),
        (rkd_angle, (0.0, 1.0), lambda B: (B - 1) * (B - 2) / B**2),
    ],
)
def test_relations_between_examples_are_torchdistills(loss, factors, counted):
    s, t = torch.randn(6, 4, requires_grad=True), torch.randn(6, 9)
    theirs = torchdistill().RKDLoss("here", "here", *factors, "mean")
    assert_same(theirs(at(s), at(t)), loss(s, t) * counted(6), s)


def test_every_row_has_a_peer():
    apart = {
        ("kdlab", "KDLoss, TokenLoss"),
        ("Liger-Kernel", "LigerJSD"),
        ("Liger-Kernel", "LigerKLDIVLoss"),
    }
    assert set(conventions().index) == set(PEERS) | apart


@pytest.mark.parametrize(
    "peer, beta, T",
    [
        (peer, beta, T)
        for peer, row in conventions().iterrows()
        if peer in PEERS
        for beta in ([0.0] if row["beta weighs"] == "no beta" else [0.0, 0.1, 0.5, 1.0])
        for T in ([1.0] if row["T²"] == "no T" else [1.0, 2.5])
    ],
    ids=str,
)
def test_the_table_translates(peer, beta, T, batch):
    assert_same(
        PEERS[peer](*batch, T, beta), translated(conventions().loc[peer], *batch, T, beta), batch[0]
    )


@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer[0])
def test_alpha_weighs_what_the_table_says(peer, batch):
    s, t, y = batch
    y, alpha, T = y.clamp_min(0), 0.3, 1.0  # every row counts; the column T² is another test's
    row, hard = conventions().loc[peer], F.cross_entropy(s.flatten(0, 1), y.flatten())
    soft = PEERS[peer](s, t, y, T, 0.0)
    whole = {
        "torchtune": lambda: (1 - alpha) * hard + alpha * soft,  # the recipe's kd_ratio
        "torchdistill": lambda: alpha * hard + (1 - alpha) * soft,
        "Keras": lambda: alpha * hard + (1 - alpha) * soft,
        "PyTorch": lambda: 0.25 * soft + 0.75 * hard,
        "TRL": lambda: soft,
        "Liger-Kernel": lambda: liger(weight_hard_loss=0.75, weight_soft_loss=0.25, beta=0.0)(
            s, t, y
        ),
    }[peer[0]]()
    share = {"soft": alpha, "hard": 1 - alpha, "two weights": 0.25, "no hard term": 1.0}[
        row["alpha weighs"]
    ]
    ours = KDLoss(T, share)(s, t, y) + (
        share * entropy(t).mean() if row["soft term"] == "cross-entropy" else 0
    )
    assert_same(whole, ours, s)


def test_trl_beside_the_named_divergences(batch):
    s, t, y = batch
    assert_same(trl_jsd(s, t, y, 2.0, 0.0) * 4, TokenLoss(temperature=2.0)(s, t, y), s)
    assert_same(trl_jsd(s, t, y, 1.0, 1.0), reverse_kl(s, t, mask=y >= 0), s)
    # each half of its generalised JSD is one of DistiLLM's skewed divergences
    halves = 0.3 * skew_forward_kl(s, t, 0.3, mask=y >= 0) + 0.7 * skew_reverse_kl(
        s, t, 0.7, mask=y >= 0
    )
    assert_same(trl_jsd(s, t, y, 1.0, 0.3), halves, s)
    assert (
        trl_jsd(s, t, y, 1.0, 1e-4) < 1e-3 < trl_jsd(s, t, y, 1.0, 0.0)
    )  # the jump at the ends, kdlab's too
    assert jsd(s, t, 1e-4, mask=y >= 0) < 1e-3 < jsd(s, t, 0, mask=y >= 0)


def test_trls_other_reductions(batch):
    s, t, y = batch
    loss, everywhere = gkd().generalized_jsd_loss, jsd(s, t)
    assert_same(
        loss(s, t), everywhere * 7, s
    )  # without labels: by the number of texts, not of tokens
    assert_same(loss(s, t, y, reduction="mean"), jsd(s, t, mask=y >= 0) / CLASSES, s)
    assert_same(loss(s, t, y, num_items_in_batch=4), jsd(s, t, mask=y >= 0) * 9 / 4, s)
    assert "temperature" not in inspect.getsource(gkd().compute_loss)  # the trainer leaves it at 1


def test_trls_chunked_loss(batch):
    chunked = pytest.importorskip(
        "trl.trainer.distillation_trainer", reason="needs the extra peers"
    )
    s, t, y = batch
    head = torch.eye(CLASSES)
    for beta in (0.0, 0.3, 1.0):
        loss, _, _ = chunked._chunked_divergence_loss(
            s, t, head, head, y >= 0, beta, temperature=2.0
        )
        assert_same(loss, jsd(s, t, beta, temperature=2.0, mask=y >= 0), s)


def test_liger_fills_a_narrower_student_up_with_zeros(batch):
    s, t, y = batch
    y, narrow = torch.where(y >= 0, y.clamp_max(8), y), s[..., :9]
    value = liger(weight_hard_loss=0.0, weight_soft_loss=1.0, beta=0.0)(narrow, t, y)
    assert_same(value, forward_kl(F.pad(narrow, (0, 2)), t, mask=y >= 0), s)
    real = forward_kl(*mask_padding(narrow, t, 9), mask=y >= 0)
    assert (value - real).abs() > 0.1
    default = liger()(s, t, y)
    assert_same(
        default, 0.5 * jsd(s, t, mask=y >= 0) + 0.5 * F.cross_entropy(s[y >= 0], y[y >= 0]), s
    )


KERNELS = """
import json, torch
from liger_kernel.transformers.jsd import LigerJSD
from liger_kernel.transformers.kl_div import LigerKLDIVLoss
class Eps(float):  # the interpreter hands a float over as it is, the compiler as a tensor
    to = lambda self, dtype: float(self)
torch.manual_seed(0)
s, t = torch.randn(6, 11, requires_grad=True), torch.randn(6, 11)
y = torch.tensor([1, -100, 2, 3, -100, 4])
log_p, p = t.log_softmax(-1), t.softmax(-1)
def log_q():  # anew each time, for a graph of its own
    return s.log_softmax(-1)
found = {str(beta): LigerJSD(beta=beta)(log_q(), log_p, y) for beta in (0.0, 0.1, 1.0)}
found["mean"] = LigerKLDIVLoss(Eps(1e-10))(log_q(), p)
found["batchmean"] = LigerKLDIVLoss(Eps(1e-10), reduction="batchmean")(log_q(), p)
print(json.dumps({k: (v.item(), torch.autograd.grad(v, s)[0].tolist()) for k, v in found.items()}))
"""


def test_ligers_kernels_in_tritons_interpreter():
    pytest.importorskip("liger_kernel", reason="needs the extra peers")
    pytest.importorskip("triton", reason="Liger's kernels need Triton")
    alone = os.environ | {
        "TRITON_INTERPRET": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }  # read when Triton is imported
    said = subprocess.run(
        [sys.executable, "-c", KERNELS], env=alone, capture_output=True, text=True, check=True
    ).stdout
    found, table = json.loads(said.splitlines()[-1]), conventions().loc["Liger-Kernel"]
    torch.manual_seed(0)
    s, t, y = (
        torch.randn(6, 11, requires_grad=True),
        torch.randn(6, 11),
        torch.tensor([1, -100, 2, 3, -100, 4]),
    )
    for key, (value, grad) in found.items():
        if key == "batchmean":
            ours = forward_kl(s, t)
        else:
            row = table.loc["LigerKLDIVLoss" if key == "mean" else "LigerJSD"]
            ours = translated(row, s, t, y, 1.0, 0.0 if key == "mean" else float(key))
        assert value == pytest.approx(ours.item(), rel=1e-4), key
        torch.testing.assert_close(
            torch.tensor(grad), torch.autograd.grad(ours, s)[0], rtol=1e-3, atol=1e-6
        )


def test_the_numbers_of_torchtunes_own_test():
    s, t = (
        torch.tensor(z, dtype=torch.float64).view(2, 4, 4)
        for z in (
            [
                1.1250,
                -0.4102,
                -0.0879,
                -2.5000,
                0.2676,
                0.3535,
                0.8711,
                -1.4688,
                -0.1084,
                1.6641,
                0.0084,
                0.1196,
                0.5000,
                -0.6406,
                -0.2236,
                -1.5938,
                -1.5312,
                -1.9219,
                0.0000,
                -0.5039,
                -1.5391,
                1.5312,
                0.5820,
                0.2695,
                -0.3887,
                1.2188,
                0.0000,
                0.6055,
                0.5000,
                1.3828,
                0.1309,
                -1.0312,
            ],
            [
                -0.0381,
                -1.2578,
                -1.2031,
                0.0947,
                -0.7852,
                0.4492,
                1.5547,
                0.0972,
                0.8203,
                0.0012,
                0.7656,
                0.3477,
                -1.5781,
                0.4297,
                0.5977,
                0.3926,
                1.5156,
                0.1641,
                2.0781,
                -0.7734,
                -0.5898,
                0.4453,
                -0.7969,
                0.6328,
                0.6289,
                -0.8359,
                0.9258,
                0.2109,
                0.0006,
                0.5195,
                3.2344,
                -1.5781,
            ],
        )
    )
    assert forward_kl(s, t).item() == pytest.approx(0.629286, abs=5e-7)
    assert reverse_kl(s, t).item() == pytest.approx(0.677491, abs=5e-7)
    assert entropy(t).mean().item() == pytest.approx(1.091595, abs=5e-7)
    labels = torch.tensor([[0, 3, 3, 1], [1, 1, 1, 1]])
    assert torchtune_kl(s, t, labels, 1.0, 0.0).item() == pytest.approx(
        1.720881, abs=5e-7
    )  # its test expects 1.7209


def test_uld_beside_trls():
    gold = pytest.importorskip("trl.experimental.gold.gold_trainer", reason="needs the extra peers")
    options = {
        "crossentropy_weight": 0.0,
        "distillation_weight": 1.0,
        "student_temperature": 1.5,
        "teacher_temperature": 1.5,
        "skip_student_eos": False,
        "skip_teacher_eos": False,
        "token_merge_strategy": "bayesian",
    }
    trl = gold.ULDLoss(
        SimpleNamespace(use_extended_uld=False, **{f"uld_{k}": v for k, v in options.items()})
    )
    make = torch.Generator().manual_seed(0)
    s, t = (
        torch.randn(2, 8, 9, generator=make).requires_grad_(),
        torch.randn(2, 10, 12, generator=make),
    )
    y, labels = torch.full((2, 8), -100), torch.full((2, 10), -100)
    y[0, 2:8], y[1, 4:6], labels[0, 3:8], labels[1, 1:10] = (
        1,
        1,
        1,
        1,
    )  # answers of 6 and 2 tokens, of 5 and 9
    (z, mask), (w, other) = next_token(s, y), next_token(t, labels)
    rows = uld(z, w, mask >= 0, other >= 0, temperature=1.5, reduction="rows")
    theirs = trl(s, t, y, labels, y, labels)
    assert_same(
        theirs, (rows[0].sum() / 5 + rows[1].sum() / 2) / 2, s
    )  # TRL: the mean of each text's mean
    assert_same(uld(z, w, mask >= 0, other >= 0, temperature=1.5), rows.sum() / 7, s)
    cuts = [0, 2, 3, 7, 9, 12], [0, 1, 3, 5, 9, 10, 12]
    offsets = [list(zip(c, c[1:], strict=False)) for c in cuts]
    assert list(zip(*gold.ULDLoss._align_by_byte_offsets(*offsets), strict=True)) == align(*offsets)
