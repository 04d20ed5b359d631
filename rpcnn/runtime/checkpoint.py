"""Run folders, weights and training state on disk.

A run folder holds model.safetensors (weights; its metadata carries the configuration and the label names), snapshots
state-<iteration>.pt (weights, optimizer, scaler, iteration) for an exact resume, and the files of logbook.py. Every
file is written under a temporary name in the same folder and then renamed, so that a crash leaves the old file intact.
Damage is noticed when a file is read: snapshots by the checksums of their zip archive, weights by a SHA-256 of their
tensors in the metadata.
"""

import hashlib
import json
import os
import pathlib
import re
import shutil
import zipfile
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from rpcnn.config import Config, from_dict, to_dict
from rpcnn.config.imports import untrusted
from rpcnn.labels import CIHP, MHP_V2, LabelSet

from .finite import broken_tensors

WEIGHTS = "model.safetensors"
EMA_WEIGHTS = "ema.safetensors"
"""The moving average of the weights (train.ema_decay)."""
BEST_WEIGHTS = "best.safetensors"
"""The weights with the best run.best_metric so far (run.evaluate_every)."""
MARK = "launch.json"
"""Which start of torchrun made the folder; its restarts continue there."""


class CannotSave(OSError):
    """A file cannot be written; the file of the same name before it, if any, is intact."""


def new_run_folder(output: str, name: str, resume: str) -> tuple[pathlib.Path, bool]:
    """Choose the run folder; returns it and whether to resume the run in it.

    A restart by torchrun (--max-restarts) resumes the run that its first attempt has begun, whatever `resume` says.

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
    runs = [pathlib.Path("runs") / name]
    while not output and runs[-1].exists():
        runs.append(pathlib.Path("runs") / f"{name}-{len(runs) + 1}")
    candidates = [pathlib.Path(output)] if output else runs[:-1]
    if int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0)) > 0:
        for folder in reversed(candidates):
            if mark_of(folder) == this_launch():
                return folder, bool(snapshots(folder))
    if resume == "auto":
        for folder in reversed(candidates):
            if snapshots(folder):
                return folder, True
    if output and any((candidates[0] / file).exists() for file in (WEIGHTS, "config.toml", "metrics.jsonl")):
        raise ValueError(f"run.output: {output} already holds a run; use --resume auto or another --output")
    return pathlib.Path(output) if output else runs[-1], False


def this_launch() -> dict[str, str]:
    """What tells one start of torchrun from another: its id, or else the process that all its attempts come from."""
    number = os.environ.get("TORCHELASTIC_RUN_ID", "none")
    return {"torchrun": number if number != "none" else f"{os.uname().nodename} {os.getppid()}"}


def mark_of(folder: pathlib.Path) -> dict | None:
    """`this_launch` of the process that began the run in this folder, if it is known."""
    try:
        return json.loads((folder / MARK).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def snapshots(folder: pathlib.Path) -> list[pathlib.Path]:
    """The snapshots of a run folder, oldest first."""
    found = [(int(m.group(1)), p) for p in folder.glob("state-*.pt") if (m := re.fullmatch(r"state-(\d+)\.pt", p.name))]
    return [path for _, path in sorted(found)]


def replace_file(path: pathlib.Path, write) -> None:
    """Call write(partial) with a temporary path in the same folder, then rename that file to `path`."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.touch()
        mode = partial.stat().st_mode  # as the umask wants it; safetensors makes files that only their owner can read
        write(partial)
        partial.chmod(mode)
        os.replace(partial, path)
    except Exception as error:  # torch raises RuntimeError and safetensors its own error when a disk is full
        partial.unlink(missing_ok=True)
        if isinstance(error, OSError | RuntimeError | SafetensorError):
            raise CannotSave(_why(path, error)) from None
        raise


def _why(path: pathlib.Path, error: Exception) -> str:
    try:
        free = shutil.disk_usage(path.parent).free / 2**20
        space = f" ({free:,.0f} MB are free)"
    except OSError:
        space = ""
    reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
    return (
        f"{path} cannot be written: {reason}{space}. Earlier snapshots are intact; free space or mend the folder, and "
        "continue with --resume auto"
    )


def check_space(folder: pathlib.Path, size: int) -> None:
    """Raise ValueError if the folder's file system has less than `size` bytes free."""
    free = shutil.disk_usage(folder).free
    if free < size:
        raise ValueError(
            f"run.output: snapshots and weights need {size / 2**20:,.0f} MB, {folder} has {free / 2**20:,.0f} MB free; "
            "free space or give another --output"
        )


def remove_partial_files(folder: pathlib.Path) -> None:
    """Remove what a run that was killed while writing has left."""
    for path in folder.glob(".*.partial*"):
        path.unlink(missing_ok=True)


def checksum(state: dict[str, torch.Tensor]) -> str:
    """SHA-256 of the names and bytes of CPU tensors."""
    digest = hashlib.sha256()
    for key in sorted(state):
        digest.update(key.encode())
        flat = state[key].contiguous().flatten()
        flat = flat.as_strided(flat.shape, (1,))  # a single element may have stride 0
        digest.update(flat.view(torch.uint8).numpy())
    return digest.hexdigest()


class Weights(NamedTuple):
    """Contents of a model.safetensors."""

    state: dict[str, torch.Tensor]
    config: Config
    """Of the run that wrote it. `model.backbone_weights`, `train.init_weights` and `run.output` are emptied, because
    the state dict holds all weights."""
    label_set: LabelSet


def save_weights(path: pathlib.Path, model: torch.nn.Module, config: Config, label_set: LabelSet) -> None:
    """Write the model's state dict as safetensors, with the configuration and the label set in the metadata."""
    save_state(path, model.state_dict(), config, label_set)


def save_state(path: pathlib.Path, state: dict[str, torch.Tensor], config: Config, label_set: LabelSet) -> None:
    """Write a state dict as :func:`save_weights` does, each tensor in its own dtype."""
    state = {key: value.detach().cpu().contiguous() for key, value in state.items()}
    metadata = {
        "format": "rpcnn",
        "config": json.dumps(to_dict(config)),
        "labels": json.dumps(label_set.to_dict()),
        "sha256": checksum(state),
    }
    replace_file(path, lambda partial: save_file(state, partial, metadata))


def is_own(path: str | pathlib.Path) -> bool:
    """Whether a path is a folder or a safetensors file with rpcnn's metadata."""
    path = pathlib.Path(path)
    if path.is_dir() or not path.is_file():
        return path.is_dir()
    try:
        with safe_open(path, "pt") as file:
            return (file.metadata() or {}).get("format") == "rpcnn"
    except SafetensorError:
        return False


def load_weights(path: str | pathlib.Path) -> Weights:
    """Read a model.safetensors.

    Args:
        path: of the file or of its run folder.

    Raises:
        ValueError: no such file, not a safetensors file, not written by rpcnn, damaged, or with values that are not
            finite.
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
            config = from_dict(_record(metadata, "config", path), source=f"{path} metadata")
    except SafetensorError as error:
        hint = "; give the run folder" if path.suffix in (".pt", ".toml") else ""
        raise ValueError(f"weights: {path} is not a safetensors file: {error}{hint}") from None
    if "sha256" in metadata and checksum(state) != metadata["sha256"]:
        raise ValueError(f"weights: {path} is damaged: its tensors differ from what was written")
    # A ReLU may turn NaN into 0, which would hide the fault.
    broken = [key for key, value in state.items() if not value.isfinite().all()]
    if broken:
        raise ValueError(f"weights: {path} holds values that are not finite, in {', '.join(broken[:3])}")
    config.model.backbone_weights = config.train.init_weights = config.run.output = ""
    config.model.backbone, config.data.dataset = untrusted(config.model.backbone), untrusted(config.data.dataset)
    return Weights(state, config, _label_set(_record(metadata, "labels", path)))


def _record(metadata: dict[str, str], key: str, path: pathlib.Path) -> dict:
    """A value of the metadata, which is JSON. Raises ValueError if it is not."""
    try:
        return json.loads(metadata[key])
    except ValueError as error:
        raise ValueError(f"weights: {path} is damaged: the {key} in its metadata is no JSON: {error}") from None


def _label_set(values: dict) -> LabelSet:
    """The label set of the metadata; version 0.1 wrote only the names."""
    known = {label_set.name: label_set for label_set in (CIHP, MHP_V2)}
    return known[values["name"]] if "palette" not in values else LabelSet.from_dict(values)


def save_snapshot(folder: pathlib.Path, iteration: int, state: dict, keep: int = 2) -> None:
    """Write state-<iteration>.pt and remove all but the newest `keep` snapshots.

    Raises:
        CannotSave: the file cannot be written; nothing is removed.
    """
    replace_file(folder / f"state-{iteration}.pt", lambda partial: torch.save(state, partial))
    for path in snapshots(folder)[:-keep]:
        path.unlink()


def load_snapshot(folder: pathlib.Path) -> dict:
    """Load the newest sound snapshot of a run folder on the CPU; damaged ones are reported and skipped.

    Raises:
        ValueError: no snapshot can be used.
    """
    for path in reversed(snapshots(folder)):
        try:
            with zipfile.ZipFile(path) as archive:
                if damaged := archive.testzip():
                    raise ValueError(f"{damaged} is damaged")
            state = torch.load(path, map_location="cpu", weights_only=True)
            if broken := broken_tensors(state):
                raise ValueError(f"{broken[0]} is not finite")
            return state
        except Exception as error:  # whatever a damaged file raises
            print(f"rpcnn: {path} cannot be used ({error}); trying the snapshot before it", flush=True)
    raise ValueError(f"run.resume: no sound snapshot in {folder}")
