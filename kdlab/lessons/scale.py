"""Processes that work together, workers by hand, and what a step holds in memory, for lesson 13."""

import copy
import json
import multiprocessing
import os
import socket
import tempfile
import warnings
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
import torch.multiprocessing
import transformers
from safetensors.torch import load_file
from torch import Tensor, nn

import kdlab as kd
from kdlab.base import arguments
from kdlab.base.extras import needs
from kdlab.base.lab import device
from kdlab.base.repeats import fresh
from kdlab.evidence.cost import Live, bytes_resident
from kdlab.teachers.cache import Cache

TEACHER, STUDENT = "docs_lm", "docs_base"
BATCH, STEPS, RATE = 8, 10, 2e-3
RATE_BY_HAND = 0.1  # of SGD: larger ones let differences of rounding grow
SHARD = 16  # texts a file, few, so that two processes have something to share
LORA = ["q_proj", "v_proj", "up_proj", "down_proj"]


# --- several processes: forks of one that has loaded everything, where the system forks ---

FORKS = "forkserver" in multiprocessing.get_all_start_methods()
LOADED = ["kdlab.lessons.scale", "kdlab.training.trainer"]
LOADED += ["transformers.models.llama.modeling_llama"]


def get_ready() -> None:
    """Begin to load what the processes of `ask` and `train_together` need, beside this one.

    That takes seconds, and they begin without it too, only later.
    """
    if FORKS:
        from multiprocessing import forkserver

        forkserver.set_forkserver_preload(LOADED)
        forkserver.ensure_running()


def _together(work, processes, *given):
    """work(rank, *given) in so many processes; an error of one ends all, and is raised here."""
    get_ready()
    torch.multiprocessing.start_processes(
        _one,
        (dict(os.environ), work, *given),
        processes,
        daemon=True,  # none outlives this one
        start_method="forkserver" if FORKS else "spawn",
    )


def _one(rank, environment, work, *given):
    """One of the processes, with a core of its own and nothing to say but its error."""
    os.environ |= environment  # what it was forked of may be older
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
    torch.set_num_threads(1)
    work(rank, *given)


def ask(folder: str | os.PathLike, rows: list, processes: int = 2, **options: Any) -> Cache:
    """A teacher's signals, asked for by several processes at once → the `Cache` they filled.

    folder: a new directory. rows and options (k, sampled) as `kdlab.signals.from_teacher` takes
    them; the teacher is docs_lm. Each process calls just that function, and they share the work.
    In a program it stands below `if __name__ == "__main__":`, as multiprocessing asks.
    """
    arguments.whole("ask", "processes", processes, least=1)
    _together(_ask, processes, folder, rows, options)
    return _ask(0, folder, rows, options)  # all is there: it is opened


def _ask(rank, folder, rows, options):
    teacher, _ = kd.language_model(TEACHER)
    return kd.signals.from_teacher(folder, teacher, rows, shard=SHARD, **options)


def train_together(rows: list, processes: int = 2) -> tuple[list[float], dict[str, Tensor]]:
    """docs_base, trained on docs_lm's answers by several processes → (losses, weights).

    rows: texts, {"input_ids"}. A step is 8 texts for one process, 4 each for two; the losses are
    of each step, the weights those of the last. Several find each other as those do that `torchrun`
    starts, on this machine; one is this process.
    """
    arguments.whole("train_together", "processes", processes, least=1, most=BATCH)
    with tempfile.TemporaryDirectory() as folder:
        work = folder, rows, processes, fresh(0)
        if processes == 1:
            _train(*work)
        else:
            with socket.create_server(("127.0.0.1", 0)) as free:
                port = free.getsockname()[1]
            _together(_train_as, processes, port, *work)
        losses = json.loads(Path(folder, "losses.json").read_text())
        return losses, load_file(Path(folder, "model.safetensors"))


def _train_as(rank, port, folder, rows, processes, seed):
    """One of several, told what `torchrun` tells them: who they are, and where they meet."""
    own = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes}
    meet = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ |= {name: str(value) for name, value in (own | meet).items()}
    _train(folder, rows, processes, seed)
    torch.distributed.destroy_process_group()


def _train(folder, rows, processes, seed):
    """What each of the processes does; the first writes down what came of it."""
    teacher, student = (kd.language_model(name)[0] for name in (TEACHER, STUDENT))
    config = transformers.TrainingArguments(
        folder,
        per_device_train_batch_size=BATCH // processes,
        max_steps=STEPS,
        learning_rate=RATE,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        log_level="error",
        seed=seed,
        use_cpu=True,
        ddp_backend="gloo" if processes > 1 else None,
        dataloader_pin_memory=False,
    )
    trainer = kd.DistillationTrainer(
        student, config, teacher=teacher, objective=kd.TokenLoss(alpha=1.0), train_dataset=rows
    )
    trainer.remove_callback(transformers.PrinterCallback)
    trainer.train()
    losses = [line["loss"] for line in trainer.state.log_history if "loss" in line]
    if trainer.is_world_process_zero():
        trainer.save_model(folder)
        Path(folder, "losses.json").write_text(json.dumps(losses))


# --- workers by hand ---


def by_workers(
    base: nn.Module,
    loss: Callable[[nn.Module, list], Tensor],
    rows: list,
    merge: Callable[[Tensor, Tensor], Tensor] | None = None,
    workers: int = 2,
) -> list[Tensor]:
    """A copy of base, trained by workers that merge their gradients → its weights after each step.

    loss(model, some rows): the mean over their tokens. A step takes 8 rows; each worker has its own
    part of them, the first the shortest, and merge((W, P) gradients, (W,) tokens) makes one
    gradient of what they found.
    Without merge one worker has them all. SGD, so that a gradient is seen as it is.
    """
    student, found = copy.deepcopy(base).float().train(), []
    weights = [p for p in student.parameters() if p.requires_grad]
    for step in range(STEPS):
        own = [rows[i] for i in batch_of(rows, step)]
        count = 1 if merge is None else workers
        parts = [own[w * len(own) // count : (w + 1) * len(own) // count] for w in range(count)]
        flat = torch.stack([_gradient(loss(student, part), weights) for part in parts])
        tokens = [sum(len(row["input_ids"]) - 1 for row in part) for part in parts]
        one = flat[0] if merge is None else merge(flat, torch.tensor(tokens, dtype=flat.dtype))
        with torch.no_grad():
            sizes = [p.numel() for p in weights]
            for p, g in zip(weights, one.split(sizes), strict=True):
                p.sub_(RATE_BY_HAND * g.view_as(p))
        found.append(torch.cat([p.detach().flatten() for p in weights]))
    return found


def batch_of(rows: list, step: int) -> list[int]:
    """The numbers of a step's rows, short and long ones: sorted by length, every so many one."""
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]["input_ids"]))
    per_step = len(rows) // BATCH
    return order[(step % per_step) :: per_step][:BATCH]


def _gradient(value, weights):
    return torch.cat([g.flatten() for g in torch.autograd.grad(value, weights)])


# --- memory ---


def recipes(base: nn.Module) -> dict[str, tuple[Callable, Callable]]:
    """{name: (a function that makes a student from base, the context its loss is computed in)}."""

    def whole():
        return copy.deepcopy(base).float().train()

    def recomputed():
        model = whole()
        model.config.use_cache = False  # keys and values would be kept beside
        how = {"use_reentrant": False}
        if hasattr(model, "activation_checkpointing_enable"):  # its name from transformers 5 on
            model.activation_checkpointing_enable(how)
        else:
            model.gradient_checkpointing_enable(how)
        return model

    def adapted(model=None):
        with needs("scale", asked="recipes", why="an adapter (LoRA) needs"):
            from peft import LoraConfig, get_peft_model

        torch.manual_seed(fresh(0))
        with warnings.catch_warnings(category=FutureWarning, action="ignore"):  # peft's own
            found = get_peft_model(model or whole(), LoraConfig(r=8, target_modules=LORA))
        return found.train()

    def lower():
        return torch.autocast(device().type, torch.bfloat16)

    return {
        "all weights, float32": (whole, nullcontext),
        "bfloat16 autocast": (whole, lower),
        "checkpointing": (recomputed, nullcontext),
        "LoRA": (adapted, nullcontext),
        "LoRA, checkpointing": (lambda: adapted(recomputed()), nullcontext),
        "all three": (lambda: adapted(recomputed()), lower),
    }


def memory(model: nn.Module, loss: Callable[[nn.Module], Tensor]) -> dict[str, int]:
    """Bytes of a training step: {"weights", "Adam's means", "gradients and in between"}.

    The last is the most that is held at once between the start of loss(model) and the end of its
    backward pass, without what a kernel takes inside.

    >>> found = memory(nn.Linear(10, 10), lambda m: m(torch.ones(1, 10)).sum())
    >>> found["weights"], found["Adam's means"]
    (440, 880)
    """
    learnt = sum(p.nbytes for p in model.parameters() if p.requires_grad)
    with Live() as live:
        loss(model).backward()
    model.zero_grad(set_to_none=True)
    return {
        "weights": bytes_resident(model),
        "Adam's means": 2 * learnt,
        "gradients and in between": live.most,
    }


def moved(before: Mapping[str, Tensor], after: Any) -> float:
    """How many per cent of a model's weights differ from what they were, adapters merged in.

    before: its state dict. A tied weight counts once.
    """
    if hasattr(after, "merge_and_unload"):
        after = copy.deepcopy(after).merge_and_unload()
    own = dict(after.named_parameters())
    changed = sum(int((own[name] != before[name].to(own[name])).sum()) for name in own)
    return 100 * changed / sum(p.numel() for p in own.values())


def rows_of(texts: Iterable[str], tokenizer: Any, longest: int = 64) -> list[dict]:
    """Texts as rows of their own lengths, {"id", "input_ids"}, cut to so many tokens."""
    cut = tokenizer(list(texts), truncation=True, max_length=longest)["input_ids"]
    return [{"id": i, "input_ids": ids} for i, ids in enumerate(cut) if len(ids) > 1]
