"""Run folders, weights and training state on disk.

A run folder holds model.safetensors (weights; its metadata carries the configuration and the label names), snapshots
state-<iteration>.pt (weights, optimizer, scaler, iteration) for an exact resume, and the files of logbook.py. Every
file is written under a temporary name in the same folder and then renamed, so that a crash leaves the old file intact.
"""

import json
import os
import pathlib
import re
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from rpcnn.config import Config, from_dict, to_dict
from rpcnn.config.imports import untrusted
from rpcnn.labels import CIHP, MHP_V2, LabelSet

WEIGHTS = "model.safetensors"


def new_run_folder(output: str, name: str, resume: str) -> tuple[pathlib.Path, bool]:
    """Choose the run folder; returns it and whether to resume the run in it.

    Args:
        output: run.output; "" makes runs/<name>, runs/<name>-2, …
        name: of the preset.
        resume: "never", "auto" or a run folder.

    Raises:
        ValueError: the folder of a new run already holds a run, or the folder to resume holds none.
    """
    if resume not in ("never", "auto"):
        folder = pathlib.Path(resume)
        if not snapshots(folder):
            raise ValueError(f"run.resume: {folder} holds no snapshot (state-*.pt)")
        return folder, True
    if output:
        folder = pathlib.Path(output)
        holds_run = bool(snapshots(folder)) or (folder / WEIGHTS).exists()
        if holds_run and resume == "never":
            raise ValueError(f"run.output: {folder} already holds a run; use --resume auto or another --output")
        return folder, bool(snapshots(folder))
    runs = [pathlib.Path("runs") / name]
    while runs[-1].exists():
        runs.append(pathlib.Path("runs") / f"{name}-{len(runs) + 1}")
    if resume == "auto":
        for folder in reversed(runs[:-1]):
            if snapshots(folder):
                return folder, True
    return runs[-1], False


def snapshots(folder: pathlib.Path) -> list[pathlib.Path]:
    """The snapshots of a run folder, oldest first."""
    found = [(int(m.group(1)), p) for p in folder.glob("state-*.pt") if (m := re.fullmatch(r"state-(\d+)\.pt", p.name))]
    return [path for _, path in sorted(found)]


def replace_file(path: pathlib.Path, write) -> None:
    """Call write(partial) with a temporary path in the same folder, then rename that file to `path`."""
    partial = path.with_name(f".{path.name}.partial")
    write(partial)
    os.replace(partial, path)


class Weights(NamedTuple):
    """Contents of a model.safetensors."""

    state: dict[str, torch.Tensor]
    config: Config
    """Of the run that wrote it. `model.backbone_weights`, `train.init_weights` and `run.output` are emptied, because
    the state dict holds all weights."""
    label_set: LabelSet


def save_weights(path: pathlib.Path, model: torch.nn.Module, config: Config, label_set: LabelSet) -> None:
    """Write the model's state dict as safetensors, with the configuration and the label set in the metadata."""
    state = {key: value.detach().cpu().contiguous() for key, value in model.state_dict().items()}
    metadata = {
        "format": "rpcnn",
        "config": json.dumps(to_dict(config)),
        "labels": json.dumps(label_set.to_dict()),
    }
    replace_file(path, lambda partial: save_file(state, partial, metadata))


def load_weights(path: str | pathlib.Path) -> Weights:
    """Read a model.safetensors.

    Args:
        path: of the file or of its run folder.

    Raises:
        ValueError: no such file, not a safetensors file, not written by rpcnn, or with values that are not finite.
    """
    path = pathlib.Path(path)
    path = path / WEIGHTS if path.is_dir() else path
    if not path.is_file():
        raise ValueError(f"weights: {path} does not exist; train one with `python -m rpcnn.train`")
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            for key in ("config", "labels"):
                if key not in metadata:
                    raise ValueError(f"weights: {path} has no {key} of rpcnn in its metadata")
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  (not a dict)
            config = from_dict(json.loads(metadata["config"]), source=f"{path} metadata")
    except SafetensorError as error:
        hint = "; give the run folder" if path.suffix in (".pt", ".toml") else ""
        raise ValueError(f"weights: {path} is not a safetensors file: {error}{hint}") from None
    # A ReLU may turn NaN into 0, which would hide the fault.
    broken = [key for key, value in state.items() if not value.isfinite().all()]
    if broken:
        raise ValueError(f"weights: {path} holds values that are not finite, in {', '.join(broken[:3])}")
    config.model.backbone_weights = config.train.init_weights = config.run.output = ""
    config.model.backbone, config.data.dataset = untrusted(config.model.backbone), untrusted(config.data.dataset)
    return Weights(state, config, _label_set(json.loads(metadata["labels"])))


def _label_set(values: dict) -> LabelSet:
    """The label set of the metadata; version 0.1 wrote only the names."""
    known = {label_set.name: label_set for label_set in (CIHP, MHP_V2)}
    return known[values["name"]] if "palette" not in values else LabelSet.from_dict(values)


def save_snapshot(folder: pathlib.Path, iteration: int, state: dict, keep: int = 2) -> None:
    """Write state-<iteration>.pt and remove all but the newest `keep` snapshots."""
    replace_file(folder / f"state-{iteration}.pt", lambda partial: torch.save(state, partial))
    for path in snapshots(folder)[:-keep]:
        path.unlink()


def load_snapshot(folder: pathlib.Path) -> dict:
    """Load the newest readable snapshot of a run folder on the CPU; unreadable ones are reported and skipped.

    Raises:
        ValueError: no snapshot can be read.
    """
    for path in reversed(snapshots(folder)):
        try:
            return torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # whatever a damaged file raises
            print(f"rpcnn: {path} cannot be read ({error}); trying the snapshot before it", flush=True)
    raise ValueError(f"run.resume: no readable snapshot in {folder}")
