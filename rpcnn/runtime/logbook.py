"""Logging of a run: progress lines, metrics.jsonl and TensorBoard."""

import json
import pathlib
import resource
import sys
import time

import torch

from .distributed import all_reduce_sum, world_size


class Logbook:
    """Logs the progress of one run.

    Writes metrics.jsonl (one JSON object per line, appended on resume) and, if tensorboard is installed, its event
    files.

    Args:
        folder: of the run; created if missing.
        enabled: false on ranks other than 0, where nothing is written or printed.
    """

    def __init__(self, folder: pathlib.Path, enabled: bool = True):
        self.enabled = enabled
        self.losses: dict[str, torch.Tensor] = {}
        self.count = self.images = 0
        self.waited = 0.0
        self.since = time.perf_counter()
        if not enabled:
            return
        folder.mkdir(parents=True, exist_ok=True)
        self.file = open(folder / "metrics.jsonl", "a", encoding="utf-8")  # noqa: SIM115  (open for the whole run)
        try:
            from torch.utils.tensorboard import SummaryWriter

            self.board = SummaryWriter(str(folder))
        except ImportError:
            self.board = None

    def add(self, losses: dict[str, torch.Tensor], images: int, waited: float) -> None:
        """Add one pass: losses (kept on their device, without synchronization), images, seconds of waiting for data."""
        for name, value in losses.items():
            self.losses[name] = self.losses.get(name, 0) + value.detach()
        self.count += 1
        self.images += images
        self.waited += waited

    def report(self, iteration: int, iterations: int, learning_rate: float) -> dict[str, float]:
        """Print and write the means since the last report, over all processes; returns the mean losses and resets.

        Every process must call it.

        Raises:
            FloatingPointError: a loss is not finite; the message names it.
        """
        seconds = time.perf_counter() - self.since
        totals = all_reduce_sum(torch.stack(list(self.losses.values())).double()) / world_size()
        means = {name: value / self.count for name, value in zip(self.losses, totals.tolist(), strict=True)}
        broken = [name for name, value in means.items() if not abs(value) < float("inf")]
        if broken:
            raise FloatingPointError(
                f"iteration {iteration}: loss {', '.join(broken)} is not finite. A lower train.learning_rate, a longer "
                "train.warmup_iterations or train.clip_gradient_norm usually helps; --resume auto continues from the "
                "last snapshot."
            )
        if self.enabled:
            eta = seconds / self.count * (iterations - iteration)
            record = {
                "iteration": iteration,
                "loss": sum(means.values()),
                **{f"loss_{name}": value for name, value in means.items()},
                "learning_rate": learning_rate,
                "images_per_second": self.images / seconds,
                "data_wait": self.waited / seconds,
                "memory_gib": memory_gib(),
                "eta_seconds": eta,
            }
            self.write(record)
            terms = " ".join(f"{name} {value:.3f}" for name, value in means.items())
            print(
                f"{iteration}/{iterations}  loss {record['loss']:.3f} ({terms})  lr {learning_rate:.2e}  "
                f"{record['images_per_second']:.1f} img/s  data {100 * record['data_wait']:.0f}%  "
                f"{record['memory_gib']:.1f} GiB  ETA {_clock(eta)}",
                flush=True,
            )
        self.losses, self.count, self.images, self.waited = {}, 0, 0, 0.0
        self.since = time.perf_counter()
        return means

    def write(self, record: dict) -> None:
        """Append a record to metrics.jsonl and its numbers to TensorBoard."""
        if not self.enabled:
            return
        self.file.write(json.dumps(record) + "\n")
        self.file.flush()
        if self.board:
            for name, value in record.items():
                if isinstance(value, int | float) and name != "iteration":
                    self.board.add_scalar(name.replace("loss_", "loss/", 1), value, record.get("iteration", 0))

    def say(self, text: str) -> None:
        """Print a line on rank 0."""
        if self.enabled:
            print(text, flush=True)

    def close(self) -> None:
        """Flush and close the files."""
        if self.enabled:
            self.file.close()
            if self.board:
                self.board.close()


def memory_gib() -> float:
    """Peak memory in GiB, of the GPU if one is used, else of this process."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated() / 2**30
    unit = 1 if sys.platform == "darwin" else 1024  # bytes on macOS, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"
