"""Runs on disk: a Parquet frame, safetensors and a card, all or nothing, nothing unpickled."""

import json
import os
import tempfile
from pathlib import Path

import pandas as pd
from safetensors.torch import load_file, save_file

FILES = {"frame.parquet", "students.safetensors", "card.json"}


def save(directory, frame, students, card):
    """Write a frame, {run: module} and a card into a new directory, or over one saved before.

    Raises ValueError where the directory holds anything else; a write that fails leaves it as it
    was."""
    directory = Path(directory)
    held = {path.name for path in directory.iterdir()} if directory.exists() else set()
    if held and held != FILES:
        raise ValueError(
            f"save: directory {directory} holds {sorted(held)[:4]}; expected a new or a saved one"
        )
    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory.parent) as scratch:
        new = Path(scratch) / "new"
        new.mkdir()
        frame.to_parquet(new / "frame.parquet")
        save_file(
            {
                f"{run}.{name}": tensor.cpu().contiguous()
                for run, module in students.items()
                for name, tensor in module.state_dict().items()
            },
            new / "students.safetensors",
        )
        (new / "card.json").write_text(json.dumps(card, indent=1))
        if directory.exists():
            os.replace(directory, Path(scratch) / "old")
        os.replace(new, directory)
    return directory


def load(directory):
    """What `save` wrote: (frame, {run: state dict}); FileNotFoundError where it is not there."""
    directory = Path(directory)
    if not (directory / "card.json").is_file():
        raise FileNotFoundError(
            f"load: {directory} must hold saved runs (card.json, frame.parquet)"
        )
    state = {}
    for key, tensor in load_file(directory / "students.safetensors").items():
        run, name = key.split(".", 1)
        state.setdefault(int(run), {})[name] = tensor
    return pd.read_parquet(directory / "frame.parquet"), state
