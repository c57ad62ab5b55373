"""A reader's own loss over a stack of students, against plain calls for one student at a time, and
against `KDLoss` after training."""

import time
import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import kdlab as kd
from kdlab import KDLoss, OwnLoss

R, B, C = 3, 6, 5
SMALL = {"sizes": (50, 40, 40)}  # 50 images: with batches of 16, the last has two


def written(student_logits, teacher_logits, T):
    log_p = F.log_softmax(teacher_logits / T, dim=1)
    log_q = F.log_softmax(student_logits / T, dim=1)
    return T * T * (log_p.exp() * (log_p - log_q)).sum(1).mean()


def library(student_logits, teacher_logits, T):
    q, p = F.log_softmax(student_logits / T, -1), F.softmax(teacher_logits / T, -1)
    return F.kl_div(q, p, reduction="batchmean") * T**2


def module(student_logits, teacher_logits, temperature):
    both = [z / temperature for z in (student_logits, teacher_logits)]
    log_q, log_p = (z.log_softmax(-1) for z in both)
    return nn.KLDivLoss(reduction="batchmean", log_target=True)(log_q, log_p) * temperature**2


def over_rows(student_logits, teacher_logits, T):
    """Rows are gone through by Python: right for one student only."""
    rows = zip(student_logits, teacher_logits, strict=True)
    return sum(written(s[None], t[None], T) for s, t in rows) / len(student_logits)


def in_place(student_logits, teacher_logits, T):
    student_logits /= T
    teacher_logits /= T
    return written(student_logits, teacher_logits, 1.0) * T**2


MAPPED = [written, library, module, over_rows, in_place]


def branches(student_logits, teacher_logits, T):
    loss = written(student_logits, teacher_logits, T)
    return loss if loss > -1 else -loss


def asks(student_logits, teacher_logits, T):
    return written(student_logits, teacher_logits, T) * (1 + 0 * student_logits.max().item())


def arrays(student_logits, teacher_logits, T):
    return written(student_logits, torch.tensor(teacher_logits.tolist()), T)


def chooses(student_logits, teacher_logits, T):
    kept = teacher_logits[:, 0] > -1e9
    return written(student_logits[kept], teacher_logits[kept], T)


kept_mean = torch.zeros(10)


def keeps(student_logits, teacher_logits, T):
    kept_mean.lerp_(student_logits.detach().mean(0), 0.1)
    return written(student_logits, teacher_logits, T)


LOOPED = {
    branches: "an if or a while looks at the value of a tensor",
    asks: r"it asks for the value of a tensor, by .item\(\)",
    arrays: r"it asks for the values of a tensor, by .numpy\(\)",
    chooses: "it picks rows by a condition",
    keeps: "it changes a tensor in place",
}


@pytest.fixture(scope="module")
def tasks():
    return kd.splits("digits", 2, labels_per_class=2, **SMALL)


@pytest.fixture(scope="module")
def teacher(tasks):
    return [torch.randn(50, 10, generator=torch.Generator().manual_seed(t.seed)) for t in tasks]


@pytest.fixture
def quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def logits(seed, dtype=torch.float64):
    return torch.randn(R, B, C, generator=torch.Generator().manual_seed(seed), dtype=dtype) * 3


def trained(objective, tasks, teacher, **options):
    options = {"epochs": 3, "batch": 16, "seeds": 2, "on": "transfer"} | options
    return kd.sweep(kd.mlp(6), tasks, teacher=teacher, objective=objective, **options)


def same_students(runs, others):
    assert len(runs) == len(others)
    for run in range(len(runs)):
        state, expected = (r.module(run=run).state_dict() for r in (runs, others))
        torch.testing.assert_close(state, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("T", [[4.0, 4.0, 4.0], [1.0, 2.0, 8.0]], ids=str)
@pytest.mark.parametrize("function", MAPPED)
def test_each_replica_gets_the_value_and_gradient_of_a_call_of_its_own(function, T):
    temperatures = torch.tensor(T, dtype=torch.float64)[:, None, None]
    loss = OwnLoss(function).with_settings(temperature=temperatures)
    student, teacher = logits(0).requires_grad_(), logits(1)
    rows = loss.rows(student, teacher, None)["loss"]
    (found,) = torch.autograd.grad(rows.mean(-1).sum(), student)
    for r in range(R):
        alone = logits(0)[r].requires_grad_()
        value = written(alone, teacher[r], T[r])
        (gradient,) = torch.autograd.grad(value, alone)
        torch.testing.assert_close(rows[r], value.expand(B))
        torch.testing.assert_close(found[r], gradient)
    torch.testing.assert_close(student, logits(0), rtol=0, atol=0)
    torch.testing.assert_close(teacher, logits(1), rtol=0, atol=0)


def test_the_mean_over_rows_has_the_gradient_of_the_usual_loss():
    """In float64, a temperature a replica: to the last digits."""
    T = torch.tensor([1.0, 3.0, 9.0], dtype=torch.float64)[:, None, None]
    gradients = []
    for loss in (OwnLoss(library).with_settings(temperature=T), KDLoss(T, alpha=1.0)):
        student = logits(0).requires_grad_()
        rows = loss.rows(student, logits(1), torch.zeros(R, B, dtype=torch.long))["loss"]
        gradients += torch.autograd.grad(rows.mean(-1).sum(), student)
    torch.testing.assert_close(*gradients, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("function", MAPPED)
@pytest.mark.parametrize("on", ["train", "transfer"])
def test_students_end_as_those_of_the_usual_loss(function, on, tasks, teacher):
    """Short last batches, and rows without a label: the teacher speaks for them too."""
    rows = [z[: len(getattr(t, on))] for z, t in zip(teacher, tasks, strict=True)]
    settings = {"temperature": [1.0, 4.0], "on": on}
    found = trained(OwnLoss(function), tasks, rows, **settings)
    usual = trained(KDLoss(alpha=1.0), tasks, rows, **settings)
    same_students(found, usual)
    assert found.frame["loss"].tolist() == pytest.approx(usual.frame["loss"].tolist(), rel=1e-5)
    assert found.frame["objective"].unique().tolist() == [function.__name__]


def both(student_logits, teacher_logits, labels, T, alpha=0.3):
    hard = F.cross_entropy(student_logits, labels, reduction="none", ignore_index=-100).mean()
    return alpha * written(student_logits, teacher_logits, T) + (1 - alpha) * hard


def test_labels_and_alpha_are_given_by_name(tasks, teacher, quiet):
    """A sum over rows divided by their number is the usual loss, also where labels are missing."""
    settings = {"temperature": 2.0, "alpha": [0.2, 0.8]}
    found, usual = (trained(o, tasks, teacher, **settings) for o in (OwnLoss(both), KDLoss))
    same_students(found, usual)


@pytest.mark.parametrize("T", [4.0, [1.0, 4.0]])
@pytest.mark.parametrize("function", LOOPED)
def test_what_cannot_be_mapped_is_called_for_each_and_says_why_once(function, T, tasks, teacher):
    with pytest.warns(UserWarning, match="OwnLoss: ") as told:
        found = trained(OwnLoss(function), tasks, teacher, temperature=T)
    said = [str(w.message) for w in told if "in turn, because" in str(w.message)]
    assert len(said) == 1 and said[0].startswith(f"OwnLoss: {function.__name__} is called for each")
    with pytest.warns(UserWarning, match=LOOPED[function]):
        warnings.warn(said[0], stacklevel=1)
    same_students(found, trained(KDLoss(alpha=1.0), tasks, teacher, temperature=T))


def test_a_function_that_asks_for_a_value_later_is_looped_from_then_on(tasks, teacher):
    calls = []

    def later(student_logits, teacher_logits, T):
        calls.append(tuple(student_logits.shape))
        if len(calls) > 12:
            student_logits.sum().item()
        return written(student_logits, teacher_logits, T)

    with pytest.warns(UserWarning, match="in turn, because it asks for the value"):
        found = trained(OwnLoss(later), tasks, teacher)
    assert set(calls) == {(16, 10), (2, 10)}  # one student's, never a stack
    same_students(found, trained(KDLoss(alpha=1.0), tasks, teacher))


def test_where_replicas_share_a_temperature_it_is_a_plain_number(tasks, teacher):
    seen = []

    def notes(student_logits, teacher_logits, T):
        seen.append(T)
        return written(student_logits, teacher_logits, T)

    trained(OwnLoss(notes), tasks, teacher)
    assert set(map(type, seen)) == {float} and set(seen) == {4.0}


def test_a_slow_function_is_measured_once_and_said(tasks, teacher):
    def plods(student_logits, teacher_logits, T):
        ends = time.thread_time() + 0.05
        while time.thread_time() < ends:
            pass
        return written(student_logits, teacher_logits, T)

    loss = OwnLoss(plods)
    words = r"plods takes \d+ times as long as kd.KDLoss for 4 students; fewer seeds"
    with pytest.warns(UserWarning, match=words) as told:
        trained(loss, tasks, teacher, epochs=1)
        trained(loss, tasks, teacher, epochs=1)
    assert len(told) == 1


def nothing(student_logits, teacher_logits):
    written(student_logits, teacher_logits, 1.0)


@pytest.mark.parametrize(
    "function, error, words",
    [
        (nothing, TypeError, "function nothing must return a scalar tensor.*got None: it has no"),
        (lambda s, t: s.mean().item(), TypeError, "function <lambda> must return .*got float"),
        (lambda s, t: (s - t).square().mean(1), ValueError, r"got the shape \(16,\); end it with"),
        (lambda s, t: s.detach().mean(), ValueError, "whose gradient reaches student_logits"),
        (lambda s, t: (s.argmax(1) == t.argmax(1)).float().mean(), ValueError, "argmax"),
        (lambda s, t: (s - s).log().mean(), ValueError, "must return a finite number.*got -inf$"),
        (lambda s, t: s.maen(), AttributeError, "maen"),
    ],
)
def test_what_is_no_loss_is_refused_at_the_first_batch(function, error, words, tasks, teacher):
    loss = OwnLoss(function)
    for _ in range(2):  # also where the same loss is tried again
        with pytest.raises(error, match=words):
            trained(loss, tasks, teacher)


def test_a_batch_without_labels_is_named_where_the_value_is_not_finite():
    def hard(student_logits, teacher_logits, labels):
        return F.cross_entropy(student_logits, labels)

    student = logits(0).requires_grad_()
    with pytest.raises(ValueError, match="hard .*got nan for a batch without a label, all −100"):
        OwnLoss(hard).rows(student, logits(1), torch.full((R, B), -100))


def test_a_run_that_diverges_is_recorded_as_such(tasks, teacher):
    found = trained(OwnLoss(written), tasks, teacher, lr=[1e-2, 1e36], optimiser="sgd")
    assert found.diverged("lr") == {1e36: "4 of 4"}


@pytest.mark.parametrize(
    "function, settings, error, words",
    [
        (3, {}, TypeError, "function must be a function .* got 3"),
        (nn.KLDivLoss, {}, TypeError, "function must be a function .* got <class"),
        (lambda student_logits, T: 0, {}, TypeError, "must take student_logits and teacher_logits"),
        (lambda s: 0, {}, TypeError, r"must take .*; got <lambda>\(s\)"),
        (lambda s, t, tau: 0, {}, TypeError, r"any of labels, T, .*got <lambda>\(s, t, tau\)"),
        (written, {"temperature": 0}, ValueError, "OwnLoss: temperature must be above 0"),
        (both, {"alpha": 2}, ValueError, r"OwnLoss: alpha must lie in \[0, 1\], got 2"),
        (written, {"alpha": 0.5}, ValueError, "alpha must be left out .*doesn't ask.*got 0.5 for"),
        (nothing, {"temperature": 2}, ValueError, "temperature must be left out for a function"),
    ],
)
def test_another_signature_is_refused_by_name(function, settings, error, words):
    with pytest.raises(error, match=words):
        OwnLoss(function, **settings)


def test_settings_are_those_that_the_function_asks_for(tasks, teacher):
    def own_default(student_logits, teacher_logits, *, T=2.5, gamma=3):
        return written(student_logits, teacher_logits, T)

    assert repr(OwnLoss(both)) == "OwnLoss(function=both, temperature=4.0, alpha=0.3)"
    assert repr(OwnLoss(own_default)) == "OwnLoss(function=own_default, temperature=2.5)"
    assert repr(OwnLoss(nothing)) == "OwnLoss(function=nothing)" and not OwnLoss(nothing).swept
    assert OwnLoss(both).needs_labels and not OwnLoss(written).needs_labels
    assert OwnLoss(written, 3).setting("temperature") == 3
    with pytest.raises(ValueError, match=r"alpha must be left out.*takes \['temperature'\]"):
        trained(OwnLoss(written), tasks, teacher, alpha=0.5)


def test_several_losses_in_one_sweep_are_told_apart_by_their_functions(tasks, teacher):
    runs = trained([OwnLoss(written), OwnLoss(library), KDLoss], tasks, teacher, epochs=1)
    assert runs.frame["objective"].unique().tolist() == ["written", "library", "KDLoss"]


def test_a_bare_function_is_told_where_it_goes(tasks, teacher):
    with pytest.raises(TypeError, match=r"a loss of your own is kd.OwnLoss\(written\)"):
        trained(written, tasks, teacher)


def test_called_it_gives_the_function_s_value():
    one = OwnLoss(written, 2.0)
    torch.testing.assert_close(
        one(logits(0)[0], logits(1)[0]), written(logits(0)[0], logits(1)[0], 2)
    )
    values = [written(s, t, 2) for s, t in zip(logits(0), logits(1), strict=True)]
    torch.testing.assert_close(one(logits(0), logits(1)), torch.stack(values).mean())
    with pytest.raises(TypeError, match="labels must be given, both asks for them, got None"):
        OwnLoss(both)(logits(0), logits(1))
    with pytest.raises(TypeError, match="OwnLoss: teacher_logits must be a tensor"):
        one(logits(0), None)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_seen_in_float32(dtype):
    seen = []

    def looks(student_logits, teacher_logits, T):
        seen.extend([student_logits.dtype, teacher_logits.dtype])
        return written(student_logits, teacher_logits, T)

    student, teacher = (torch.randn(2, 5, 7, dtype=dtype) for _ in range(2))
    student.requires_grad_()
    loss = OwnLoss(looks)(student, teacher)
    loss.backward()
    expected = KDLoss(4.0, 1.0)(student, teacher, torch.zeros(2, 5, dtype=torch.long))
    assert set(seen) == {torch.float32} and student.grad.dtype == dtype
    torch.testing.assert_close(loss, expected)


def test_no_row_is_no_loss():
    with pytest.raises(ValueError, match=r"student_logits must hold at least one row.*\(0, 7\)"):
        OwnLoss(written)(torch.zeros(0, 7), torch.zeros(0, 7))
