#!/usr/bin/env bash
# Several nodes, by Slurm: the student in shards over all their GPUs. From the checkout's folder:
#     sbatch examples/launch/slurm.sh --max_steps 2000 --learning_rate 1e-4
# What stands behind the file's name goes to distil_lm.py, after what stands here, and so wins.
# CONFIG=examples/launch/two_processes.yaml in front shares out the batch alone; HF_HUB_OFFLINE=1,
# where the nodes have no network, takes models and texts from the cache that a login node filled.
#SBATCH --job-name=distil
#SBATCH --nodes=2
# one task a node: accelerate starts a process for each of its GPUs
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=04:00:00
#SBATCH --output=%x-%j.out
set -euo pipefail

# Slurm runs a copy of this file elsewhere
cd "$SLURM_SUBMIT_DIR"

# the first node is where all processes meet; into an array, since head would break the pipe
mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
# another port for each job: two may share a node
port=$((20000 + SLURM_JOB_ID % 20000))

# read before torch is imported: waiting threads must not spin
export OMP_WAIT_POLICY=PASSIVE

launch=(
    --config_file "${CONFIG:-examples/launch/fsdp.yaml}"
    --num_machines "$SLURM_NNODES"
    --num_processes "$((SLURM_NNODES * SLURM_GPUS_ON_NODE))"
    --main_process_ip "${nodes[0]}"
    --main_process_port "$port"
)
script=(
    examples/distil_lm.py
    --student HuggingFaceTB/SmolLM2-135M
    --teacher_model_name_or_path HuggingFaceTB/SmolLM2-360M
    --texts docstrings
    --output_dir "build/distil-$SLURM_JOB_ID"
    --length 512
    --per_device_train_batch_size 8
    --learning_rate 1e-4
    --max_steps 1000
    --save_strategy steps
    --save_steps 200
    --report_to none
    "$@"
)
# quoted: which node it is, each task knows only once it runs there. Where one fails all end, or
# the others would wait for it until the time is up.
# shellcheck disable=SC2016
srun --kill-on-bad-exit=1 bash -c 'accelerate launch --machine_rank "$SLURM_NODEID" "$@"' \
    distil "${launch[@]}" "${script[@]}"
