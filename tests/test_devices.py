"""Every objective and every student on a device that is not the CPU, without one: torch's meta
device, which knows shapes and devices and no values, stands for it."""

import pytest
import torch
from torch.overrides import TorchFunctionMode

import kdlab as kd
from kdlab.losses.refined import DKDLoss
from kdlab.teachers.live import EMA, Peers
from kdlab.training import loop
from kdlab.training.replicas import Replicas
from kdlab.training.stepper import OPTIMISERS, Stepper
from kdlab.training.taught import Kept, Nobody

R, B, N = 4, 6, 12


class Elsewhere(TorchFunctionMode):
    """Data are on the meta device, and what meets them must be there too.

    torch's meta kernels raise where two devices meet, but for an index: a GPU's index of a CPU's
    tensor is the error that a lesson once ended with.
    """

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function in (torch.Tensor.__getitem__, torch.Tensor.__setitem__):
            index = args[1] if isinstance(args[1], tuple) else (args[1],)
            for part in index:
                if torch.is_tensor(part) and part.ndim and part.device != args[0].device:
                    raise RuntimeError(
                        "indices should be either on cpu or on the same device as the indexed "
                        f"tensor ({args[0].device}), got {part.device}"
                    )
        return function(*args, **(kwargs or {}))


def empty(*shape, dtype=torch.float):
    return torch.empty(*shape, dtype=dtype, device="meta")


T, ALPHA = empty(R, 1, 1), empty(R, 1, 1)


def per_replica(objective):
    """With a temperature and an alpha a replica, as a sweep has them."""
    values = {"temperature": T, "alpha": ALPHA}
    return objective.with_settings(**{k: v for k, v in values.items() if k in objective.swept})


OBJECTIVES = [
    kd.KDLoss(),
    kd.KDLoss(scale="none"),
    kd.KDLoss(standardise=True),
    DKDLoss(),
    kd.HardLabels(),
    kd.LabelSmoothing(0.1),
]


@pytest.mark.parametrize("objective", OBJECTIVES, ids=repr)
def test_the_terms_of_an_objective_are_where_its_logits_are(objective):
    with Elsewhere():
        z, teacher, y = empty(R, B, 10), empty(R, B, 10), empty(R, B, dtype=torch.long)
        terms = per_replica(objective).rows(z.requires_grad_(), teacher, y)
        assert {term.device.type for term in terms.values()} == {"meta"}
        terms["loss"].sum().backward()
        assert z.grad.device.type == "meta"


def students(build, **options):
    task = kd.load("digits")
    with torch.device("meta"):
        modules = [build(task) for _ in range(R)]
    replicas = Replicas(modules, list(range(R)))
    replicas.base.train()
    return task, replicas, Stepper(replicas, [1e-2] * R, 5, **options)


BUILDS = {"mlp": kd.mlp(8), "convnet": kd.convnet(4, 8), "deep": kd.mlp(8, 8)}
each_build = pytest.mark.parametrize("build", BUILDS.values(), ids=BUILDS)
TEACHERS = {
    "nobody": lambda replicas: Nobody(),
    "kept": lambda replicas: Kept({"logits": empty(N, 10)}, empty(R, 1, dtype=torch.long)),
    "average": lambda replicas: EMA(0.9).begin(replicas),
    "peers": lambda replicas: Peers(2).begin(replicas),
}


@each_build
@pytest.mark.parametrize("teacher", TEACHERS)
def test_a_step_of_every_student_with_every_teacher(build, teacher, monkeypatch):
    def unfused(groups, fused, **options):  # torch has no fused optimiser for this device
        return torch.optim.SGD(groups, **options)

    monkeypatch.setitem(OPTIMISERS, "sgd", unfused)
    with Elsewhere():
        task, replicas, stepper = students(build, optimiser="sgd")
        objective = kd.HardLabels() if teacher == "nobody" else per_replica(kd.KDLoss())
        x, y = empty(N, *task.shape), empty(N, dtype=torch.long)
        rows = empty(R, B, dtype=torch.long)
        terms = loop.step(stepper.step, objective.rows, TEACHERS[teacher](replicas), x, y, rows)
        assert {term.device.type for term in terms.values()} == {"meta"}
        assert {v.device.type for v in stepper.state().values()} == {"meta"}


def test_a_teacher_without_weights_answers_where_its_data_are():
    with Elsewhere():
        assert kd.Rationales()(empty(N, 1, 4, 10)).device.type == "meta"


def test_the_stand_in_sees_an_index_from_elsewhere():
    with Elsewhere(), pytest.raises(RuntimeError, match="indices should be"):
        torch.zeros(3)[empty(2, dtype=torch.long)]
    with Elsewhere(), pytest.raises(RuntimeError, match="device"):
        empty(3) + torch.zeros(3)
