"""DistillationTrainer killed and resumed, in two processes, with padding on either side."""

import os
import signal

import pytest
import torch
from pair import by_two, forked, of_two
from trainers import Collate, Pairs, arguments, bert, llama, sentences, texts, train, weights
from transformers import BertForSequenceClassification, TrainerCallback

from kdlab import KDLoss
from kdlab.losses.kd import TokenLoss
from kdlab.training.trainer import DistillationTrainer


class Kill(TrainerCallback):
    """SIGKILL after a step."""

    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        """Kill."""
        if state.global_step == self.step:
            os.kill(os.getpid(), signal.SIGKILL)


def long_run(folder, callbacks=None):
    """10 AdamW steps in random order with dropout and clipping, a checkpoint every 3, in the midst
    of an epoch."""
    args = arguments(
        folder,
        2,
        2,
        num_train_epochs=2,
        optim="adamw_torch",
        learning_rate=1e-2,
        max_grad_norm=0.5,
        lr_scheduler_type="cosine",
        save_strategy="steps",
        save_steps=3,
        logging_steps=100,
        train_sampling_strategy="random",
    )
    return DistillationTrainer(
        bert(8, 1, dropout=0.3),
        args,
        teacher=bert(16, 2),
        hidden=Pairs(),
        callbacks=callbacks,
        train_dataset=sentences(20),
        data_collator=Collate("right", 0),
    )


CASES = {
    "fused": (llama, texts, TokenLoss(alpha=0.5), {"fused": True}),
    "hidden": (bert, sentences, KDLoss(), {"hidden": Pairs()}),
    "plain": (llama, texts, TokenLoss(alpha=0.5), {"hidden": Pairs()}),
}


def together(folder, size, accumulated):
    """Each case trained, and saved under its name: the same whatever the number of processes."""
    for name, (build, rows, objective, options) in CASES.items():
        trainer = train(
            folder / "runs",
            build(8, seed=1),
            rows(16, seed=3),
            size,
            accumulated,
            objective=objective,
            teacher=build(16, seed=2),
            own={"learning_rate": 0.02},
            **options,
        )
        trainer.save_model(folder / name)


def steady(folder, size, callbacks=None):
    """6 steps on fixed texts, without dropout, a checkpoint after every second."""
    args = arguments(
        folder,
        size,
        1,
        num_train_epochs=1,
        optim="adamw_torch",
        learning_rate=1e-2,
        save_strategy="steps",
        save_steps=2,
        logging_steps=100,
    )
    rows = texts(24, seed=3)
    return DistillationTrainer(
        llama(8, seed=1), args, teacher=llama(16, seed=2), train_dataset=rows, callbacks=callbacks
    )


class Began(TrainerCallback):
    """Writes down at which step training begins."""

    def __init__(self, file):
        self.file = file

    def on_train_begin(self, args, state, control, **kwargs):
        """The steps that a checkpoint had already taken."""
        self.file.write_text(str(state.global_step))


def one_of_two(folder):
    """Trains from the last checkpoint; where there is none, the second process dies at step 3."""
    torch.set_num_threads(1)
    again, rank = (folder / "checkpoint-2").exists(), os.environ["RANK"]
    began = Began(folder.with_name(f"began-{int(again)}-{rank}"))
    trainer = steady(folder, 2, [began, *([Kill(3)] if rank == "1" and not again else [])])
    trainer.train(resume_from_checkpoint=again)
    trainer.save_model(folder / "trained")


def killed(folder):
    """A long run that is killed after step 5."""
    torch.set_num_threads(1)
    long_run(folder, [Kill(5)]).train()


@pytest.fixture(autouse=True)
def one_thread():
    """As in the processes that the tests start: two threads sum in another order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_killed_and_resumed_equals_uninterrupted(tmp_path):
    process = forked().Process(target=killed, args=(tmp_path / "a",))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == ["checkpoint-3"]
    resumed = long_run(tmp_path / "a")
    resumed.train(resume_from_checkpoint=True)
    whole = long_run(tmp_path / "b")
    whole.train()
    assert resumed.state.global_step == whole.state.global_step == 10
    for a, b in [(resumed.model, whole.model), (resumed.hidden, whole.hidden)]:
        assert all(torch.equal(weights(a)[k], v) for k, v in weights(b).items())
    assert not torch.equal(whole.hidden.bridge.weight, Pairs.initial(whole.model, whole.teacher))
    files = {p.name for p in (tmp_path / "a" / "checkpoint-9").iterdir()}
    assert {
        "model.safetensors",
        "distillation.safetensors",
    } <= files and "pytorch_model.bin" not in files
    _, clean = BertForSequenceClassification.from_pretrained(
        tmp_path / "a" / "checkpoint-9", output_loading_info=True
    )
    assert not clean["unexpected_keys"] and not clean["missing_keys"]


def test_two_processes_equal_one(tmp_path):
    together(tmp_path, 2, 4)
    for name, (build, *_) in CASES.items():
        kind = type(build(8))
        places = tmp_path, of_two() / "trained"
        one, two = (weights(kind.from_pretrained(place / name)) for place in places)
        assert max((one[k] - two[k]).abs().max() for k in one) < 1e-9, name
        assert max((v - weights(build(8, seed=1))[k]).abs().max() for k, v in one.items()) > 1e-3


def test_one_of_two_is_killed_and_both_go_on_from_the_checkpoint(tmp_path):
    """Started again, they come to what one process gives that has all the texts."""
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    with pytest.raises(ChildFailedError) as died:
        by_two(one_of_two, tmp_path / "two")
    rank, how = died.value.get_first_failure()
    # told is who is seen first: the one that was killed, or the other, which lost it
    assert (rank, how.local_rank, how.exitcode) in {(1, 1, -signal.SIGKILL), (0, 0, 1)}
    by_two(one_of_two, tmp_path / "two")
    began = {p.name: p.read_text() for p in tmp_path.glob("began-*")}
    assert began == {"began-0-0": "0", "began-0-1": "0", "began-1-0": "2", "began-1-1": "2"}
    alone = steady(tmp_path / "one", 4)
    alone.train()
    assert alone.state.global_step == 6
    two = weights(type(alone.model).from_pretrained(tmp_path / "two" / "trained"))
    assert max((v - two[k]).abs().max() for k, v in weights(alone.model).items()) < 1e-6
    assert max((v - two[k]).abs().max() for k, v in weights(llama(8, seed=1)).items()) > 1e-3
