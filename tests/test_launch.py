"""examples/launch: what several processes and nodes are started with, as far as two CPU processes
can tell.

Run as a script, it is one of two processes that share a student by FSDP2.
"""

import json
import os
import runpy
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import launch_command_parser
from safetensors.torch import load_file
from transformers import HfArgumentParser

import kdlab as kd

ROOT = Path(__file__).parent.parent
LAUNCH = ROOT / "examples" / "launch"
EXAMPLE = ROOT / "examples" / "distil_lm.py"
JOB = {
    "SLURM_SUBMIT_DIR": str(ROOT),
    "SLURM_JOB_NODELIST": "gpu[07-08]",
    "SLURM_JOB_ID": "4321",
    "SLURM_NNODES": "2",
    "SLURM_GPUS_ON_NODE": "4",
}
STUBS = {  # srun runs its command once a node, as Slurm would; accelerate tells what it was given
    "scontrol": '[ "$*" = "show hostnames gpu[07-08]" ] && printf "gpu07\\ngpu08\\n"',
    "srun": 'shift; for node in 0 1; do SLURM_NODEID=$node "$@"; done',
    "accelerate": 'printf "%s\\n" "$@" END',
}


def run_job(folder, *arguments, **variables):
    """What slurm.sh, given these arguments, starts on each node: lists of words."""
    for name, body in STUBS.items():
        (folder / name).write_text(f"#!/usr/bin/env bash\n{body}\n")
        (folder / name).chmod(0o755)
    found = subprocess.run(
        ["bash", LAUNCH / "slurm.sh", *arguments],
        env={"PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"} | JOB | variables,
        capture_output=True,
        text=True,
        cwd=folder,  # it goes to where it was submitted by itself
    )
    return found.returncode, [words.split("\n")[:-1] for words in found.stdout.split("END\n")[:-1]]


@pytest.fixture
def parsed(tmp_path):
    """Each node's launch by accelerate's own parser, and what distil_lm.py reads of the rest."""

    def parse(*arguments, **variables):
        status, nodes = run_job(tmp_path, *arguments, **variables)
        assert status == 0 and len(nodes) == 2 and {words[0] for words in nodes} == {"launch"}
        found = [launch_command_parser().parse_args(words[1:]) for words in nodes]
        kinds = runpy.run_path(str(EXAMPLE))["Script"], kd.DistillationConfig
        rest = found[0].training_script_args
        assert rest == found[1].training_script_args
        return found, HfArgumentParser(kinds).parse_args_into_dataclasses(rest)

    return parse


def test_slurm_starts_a_launch_on_each_node_that_accelerate_and_the_script_read(parsed):
    nodes, (script, config) = parsed("--max_steps", "7", "--texts", "two words")
    assert [node.machine_rank for node in nodes] == [0, 1]
    for node in nodes:
        assert (node.num_machines, node.num_processes) == (2, 8)
        assert (node.main_process_ip, node.main_process_port) == ("gpu07", 24321)
        assert (ROOT / node.config_file).samefile(LAUNCH / "fsdp.yaml")
        assert (ROOT / node.training_script).samefile(EXAMPLE)
    assert (config.max_steps, script.texts) == (7, "two words")  # as given goes before the file's
    assert script.student and config.teacher_model_name_or_path
    assert config.output_dir.endswith("-4321")


def test_slurm_takes_another_config(parsed):
    nodes, _ = parsed(CONFIG="examples/launch/two_processes.yaml")
    assert {Path(node.config_file).name for node in nodes} == {"two_processes.yaml"}


@pytest.mark.parametrize("name", ["SLURM_GPUS_ON_NODE", "SLURM_JOB_NODELIST"])
def test_slurm_stops_where_something_is_missing(name, tmp_path, monkeypatch):
    monkeypatch.setitem(JOB, name, "no number" if "GPUS" in name else "elsewhere")
    status, started = run_job(tmp_path)
    assert status != 0 and started == []


def test_the_shell_script_is_sound():
    subprocess.run(["bash", "-n", LAUNCH / "slurm.sh"], check=True)
    if shutil.which("shellcheck"):
        subprocess.run(["shellcheck", LAUNCH / "slurm.sh"], check=True)
    assert os.access(LAUNCH / "slurm.sh", os.X_OK)


def test_accelerate_knows_every_key_of_the_configs():
    options = vars(launch_command_parser().parse_args(["script.py"]))
    kinds = {}
    for path in sorted(LAUNCH.glob("*.yaml")):
        config = load_config_from_file(str(path))  # an unknown key at the top is an error
        kinds[path.stem] = config.distributed_type.value, config.mixed_precision
        assert set(config.fsdp_config) <= set(options), path  # one further in is passed over
    assert kinds == {"fsdp": ("FSDP", "bf16"), "two_processes": ("MULTI_GPU", "no")}
    assert config.num_processes == 2
    assert load_config_from_file(str(LAUNCH / "fsdp.yaml")).fsdp_config["fsdp_version"] == 2


# --- FSDP2, on two processors ---

LINE = [
    *("--student", "docs_base", "--teacher_model_name_or_path", "docs_lm", "--texts", "web"),
    *("--learning_rate", "2e-3", "--max_steps", "4", "--logging_steps", "1", "--length", "32"),
    *("--report_to", "none", "--use_cpu", "--disable_tqdm", "True", "--save_strategy", "no"),
]


def launched(config, folder, script=__file__):
    """Two CPU processes by a config of examples/launch, float32; what process 0 wrote down."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    here = yaml.safe_load((LAUNCH / config).read_text(encoding="utf-8"))
    here |= {"use_cpu": True, "num_processes": 2, "mixed_precision": "no"}
    (folder / config).write_text(yaml.safe_dump(here), encoding="utf-8")
    words = ["--config_file", folder / config, "--main_process_port", port, script, folder / "told"]
    batch = ["--per_device_train_batch_size", "8", "--output_dir", folder / "two"]
    found = subprocess.run(
        [sys.executable, "-m", "accelerate.commands.launch", *words, *LINE, *batch],
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert found.returncode == 0, found.stderr[-3000:]
    return json.loads((folder / "told").read_text()), found.stdout


def losses(trainer):
    """Every loss of the log, in evaluation too."""
    of = ("loss", "eval_loss")
    return [line[key] for line in trainer.state.log_history for key in of if key in line]


def with_hidden(folder, size, checkpoint=None):
    """The losses of 4 steps on logits and hidden layers, whose projectors are trained along."""
    student, tokenizer = kd.language_model("docs_base", dtype=torch.float32)
    ids = tokenizer(kd.plain_text("web")["train"][:64], truncation=True, max_length=32)["input_ids"]
    torch.manual_seed(0)  # of the projectors
    trainer = kd.DistillationTrainer(
        student,
        kd.DistillationConfig(
            str(folder),
            max_steps=4,
            save_strategy="steps",
            save_steps=2,
            logging_steps=1,
            learning_rate=2e-3,
            per_device_train_batch_size=size,
            use_cpu=True,
            report_to="none",
            disable_tqdm=True,
        ),
        teacher=kd.language_model("docs_lm")[0],
        hidden=kd.LayerMap([(0, 1), (1, 3)], attention=0),
        train_dataset=[{"input_ids": row, "labels": row} for row in ids if len(row) > 1],
        processing_class=tokenizer,
    )
    trainer.train(resume_from_checkpoint=checkpoint)
    found = [line for line in trainer.state.log_history if "loss" in line]
    return [line[key] for line in found for key in ("loss", "hidden")]


def shard_on_cpu():
    """accelerate's FSDP on CPU processes, which torch shards as well, though accelerate leaves them
    alone: AcceleratorState makes the kind FSDP out of kinds of GPUs only."""
    from accelerate.state import AcceleratorState, DistributedType, PartialState

    first = AcceleratorState.__init__

    def state(self, *args, fsdp_plugin=None, **options):
        first(self, *args, fsdp_plugin=fsdp_plugin, **options)
        if fsdp_plugin is not None:
            self.distributed_type, self.fsdp_plugin = DistributedType.FSDP, fsdp_plugin
            PartialState._shared_state["distributed_type"] = DistributedType.FSDP

    AcceleratorState.__init__ = state


def one_of_two(place, line):
    """Trains as distil_lm.py does; process 0 tells what it came to."""
    torch.set_num_threads(1)
    sharded = os.environ.get("ACCELERATE_USE_FSDP") == "true"
    if sharded:
        shard_on_cpu()
    trainer = runpy.run_path(str(EXAMPLE))["main"](line)
    told = {"losses": losses(trainer), "kind": trainer.accelerator.distributed_type.value}
    for name, model in (("student", trainer.model), ("teacher", trainer.teacher)):
        # what this process holds of a model, of the whole of it
        held = sum(getattr(p, "_local_tensor", p).numel() for p in model.parameters())
        told[name] = held / sum(p.numel() for p in model.parameters())
    if sharded:
        folder = Path(place).with_name("hidden")
        told["hidden"] = with_hidden(folder, 8)
        told["resumed"] = with_hidden(folder, 8, str(folder / "checkpoint-2"))
    if trainer.is_world_process_zero():
        Path(place).write_text(json.dumps(told))


if __name__ == "__main__":
    one_of_two(sys.argv[1], sys.argv[2:])
    sys.exit()


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """One process with the batch of both: (losses, weights)."""
    folder, threads = tmp_path_factory.mktemp("alone"), torch.get_num_threads()
    torch.set_num_threads(1)  # as each of the two: several threads sum in another order
    batch = ["--per_device_train_batch_size", "16", "--output_dir", str(folder)]
    trainer = runpy.run_path(str(EXAMPLE))["main"]([*LINE, *batch])
    torch.set_num_threads(threads)
    return losses(trainer), load_file(folder / "model.safetensors")


def test_two_sharded_processes_are_one_with_twice_the_batch(alone, tmp_path):
    told, said = launched("fsdp.yaml", tmp_path)
    assert (told["kind"], told["student"], told["teacher"]) == ("FSDP", 0.5, 1)
    assert said.count("perplexity ") == 1  # one process tells
    assert told["losses"] == pytest.approx(alone[0], abs=1e-5) and len(alone[0]) == 6
    two, before = load_file(tmp_path / "two" / "model.safetensors"), kd.language_model("docs_base")
    moved = 0
    for name, weights in alone[1].items():
        assert (two[name] - weights).abs().max() < 1e-4, name
        moved = max(moved, (weights - before[0].state_dict()[name]).abs().max())
    assert moved > 5e-3
    # projectors are sharded, kept and read again with the student
    assert told["hidden"] == pytest.approx(with_hidden(tmp_path / "one", 16), abs=1e-5)
    assert told["resumed"] == told["hidden"]
