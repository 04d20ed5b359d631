"""Logging of a run: progress lines, metrics.jsonl and TensorBoard."""

import json
import logging
import os
import pathlib
import sys
import time
from typing import Any

import torch

from .distributed import all_reduce_sum, world_size

log = logging.getLogger(__name__)


class Logbook:
    """Logs the progress of one run.

    Writes metrics.jsonl (one JSON object per line) and, if tensorboard is installed, its event files. What cannot be
    written is a warning: a log never ends a training.

    Args:
        folder: of the run; created if missing.
        enabled: false on ranks other than 0, where nothing is written or printed.
        after: iteration of the snapshot that the run continues from. Records of later iterations are removed; they
            would stand twice.
    """

    def __init__(self, folder: pathlib.Path, enabled: bool = True, after: int | None = None):
        self.enabled, self.path = enabled, folder / "metrics.jsonl"
        self.board: Any = None
        self.complained = False
        self._begin()
        if not enabled:
            return
        folder.mkdir(parents=True, exist_ok=True)
        if after is not None:
            self._cut(after)
        self._open_board(after)

    def _begin(self) -> None:
        self.losses: dict[str, torch.Tensor] = {}
        self.norm: torch.Tensor | float = 0.0
        self.good: torch.Tensor | float = 0.0
        self.count = self.images = 0
        self.waited = 0.0
        self.since = time.perf_counter()

    def _open_board(self, after: int | None) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter

            self.board = SummaryWriter(str(self.path.parent), purge_step=None if after is None else after + 1)
        except ImportError:
            pass
        except Exception as error:  # a broken installation fails in many ways
            log.warning("TensorBoard cannot be used (%s: %s)", type(error).__name__, error)

    def _cut(self, after: int) -> None:
        kept = [record for record in self.records() if record.get("iteration", 0) <= after]
        partial = self.path.with_name(f".{self.path.name}.partial")
        partial.write_text("".join(json.dumps(record) + "\n" for record in kept), encoding="utf-8")
        os.replace(partial, self.path)

    def restart(self, after: int) -> None:
        """Go back to an iteration: remove the records of later ones and forget what was added."""
        self._begin()
        if self.enabled:
            self._cut(after)
            if self.board:
                self.board.close()
                self._open_board(after)

    def records(self) -> list[dict]:
        """The records of metrics.jsonl, oldest first; a line that a crash has torn is left out."""
        records = []
        for line in self.path.read_text(encoding="utf-8").splitlines() if self.path.exists() else []:
            try:
                records.append(json.loads(line))
            except json.JSONDecodeError:
                continue
        return records

    def add(
        self, losses: dict[str, torch.Tensor], norm: torch.Tensor, bad: torch.Tensor, images: int, waited: float
    ) -> None:
        """Add one step. Tensors stay on their device, without synchronization.

        Args:
            losses: scalars.
            norm: of the gradient, a scalar.
            bad: bool scalar, whether the step was skipped; it does not count in the means of losses and norm.
            images: number of images over all processes.
            waited: seconds of waiting for data.
        """
        for name, value in losses.items():
            self.losses[name] = self.losses.get(name, 0) + torch.where(bad, 0, value.detach())
        self.norm = self.norm + torch.where(bad | ~norm.isfinite(), 0, norm.detach())
        self.good = self.good + (~bad).float()
        self.count += 1
        self.images += images
        self.waited += waited

    def report(self, iteration: int, iterations: int, learning_rate: float) -> dict[str, float | None]:
        """Print and write the means since the last report, over all processes; returns the mean losses and resets.

        Every process must call it. A mean is None if every step was skipped.
        """
        seconds = time.perf_counter() - self.since
        totals = torch.stack([*self.losses.values(), torch.as_tensor(self.norm), torch.as_tensor(self.good)])
        *sums, norm, good = (all_reduce_sum(totals.double()) / world_size()).tolist()
        mean = lambda total: total / good if good else None
        means = {name: mean(total) for name, total in zip(self.losses, sums, strict=True)}
        skipped = round(self.count - good)
        if self.enabled:
            eta = seconds / self.count * (iterations - iteration)
            record = {
                "iteration": iteration,
                "loss": sum(means.values()) if good else None,
                **{f"loss_{name}": value for name, value in means.items()},
                "gradient_norm": mean(norm),
                "learning_rate": learning_rate,
                "images_per_second": self.images / seconds,
                "data_wait": self.waited / seconds,
                "memory_gib": memory_gib(),
                "eta_seconds": eta,
                **({"skipped_steps": skipped} if skipped else {}),
            }
            self.write(record)
            number = lambda value: "–" if value is None else f"{value:.3f}"
            terms = " ".join(f"{name} {number(value)}" for name, value in means.items())
            self.say(
                f"{iteration}/{iterations}  loss {number(record['loss'])} ({terms})  norm {number(mean(norm))}  "
                f"lr {learning_rate:.2e}  {record['images_per_second']:.1f} img/s  "
                f"data {100 * record['data_wait']:.0f}%  {record['memory_gib']:.1f} GiB  ETA {_clock(eta)}"
                + (f"  {skipped} steps skipped" if skipped else "")
            )
        self._begin()
        return means

    def write(self, record: dict) -> None:
        """Append a record to metrics.jsonl and its numbers to TensorBoard."""
        if not self.enabled:
            return
        try:
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")
            if self.board:
                for name, value in record.items():
                    if isinstance(value, int | float) and name != "iteration":
                        self.board.add_scalar(name.replace("loss_", "loss/", 1), value, record.get("iteration", 0))
        except OSError as error:
            if not self.complained:
                log.warning("%s: %s; training goes on without this record", self.path, error.strerror or error)
            self.complained = True

    def say(self, text: str) -> None:
        """Print a line on rank 0."""
        if self.enabled:
            print(text, flush=True)

    def close(self) -> None:
        """Flush and close the event files."""
        if self.board:
            self.board.close()


def memory_gib() -> float:
    """Peak memory in GiB, of the GPU if one is used, else of this process."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated() / 2**30
    try:
        import resource
    except ImportError:  # Windows
        return 0.0
    unit = 1 if sys.platform == "darwin" else 1024  # bytes on macOS, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"
