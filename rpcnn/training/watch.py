"""Evaluation while training: the curve, the best weights so far, and when to stop early."""

import pathlib

from rpcnn.config import Config
from rpcnn.evaluation.trained_model import evaluate
from rpcnn.inference.pipeline import Pipeline
from rpcnn.labels import LabelSet
from rpcnn.metrics import DEFAULT_METRICS
from rpcnn.model import RPRCNN
from rpcnn.runtime import distributed
from rpcnn.runtime.checkpoint import BEST_WEIGHTS, save_weights
from rpcnn.runtime.logbook import Logbook

KEYS = [key for metric in DEFAULT_METRICS for _, key in metric.columns]
"""The metrics of which one can choose the best weights."""
PREFIX = "ema_"  # of the results of averaged weights


class Watch:
    """Evaluates a model in training by run.best_metric.

    What it knows of earlier evaluations it reads from metrics.jsonl, so a continued run goes on where it was.

    Args:
        config: its group run is used, and all that `evaluate` uses.
        label_set: of the model.
        folder: of the run.
        log: its records are read and written.

    Raises:
        ValueError: unknown run.best_metric.
    """

    def __init__(self, config: Config, label_set: LabelSet, folder: pathlib.Path, log: Logbook):
        if config.run.best_metric not in KEYS:
            raise ValueError(f"run.best_metric: must be one of {', '.join(KEYS)}, got {config.run.best_metric!r}")
        self.config, self.label_set, self.folder, self.log = config, label_set, folder, log
        self.key = config.run.best_metric

    def evaluations(self) -> list[dict]:
        """The records of all evaluations so far, the same in all processes."""
        return distributed.on_main(lambda: [record for record in self.log.records() if self.key in record])

    def is_due(self, iteration: int) -> bool:
        """Whether an evaluation belongs to this iteration and has not been made."""
        every = self.config.run.evaluate_every
        if not every or iteration == 0 or iteration % every:
            return False
        return all(record["iteration"] != iteration for record in self.evaluations())

    def look(self, models: dict[str, RPRCNN], iteration: int) -> None:
        """Evaluate the models, log the results and keep the best weights.

        Every process must call it. The models are left in eval mode.

        Args:
            models: by the prefix of their metrics: "" the trained one, `PREFIX` its moving average.
        """
        before = [record.get(prefix + self.key) for record in self.evaluations() for prefix in ("", PREFIX)]
        best = max((value for value in before if value is not None), default=-1.0)
        record = {"iteration": iteration}
        for prefix, model in models.items():
            results = evaluate(Pipeline(model, self.config, self.label_set))
            record |= {prefix + name: value for name, value in results.items() if isinstance(value, float)}
            value = results[self.key]
            if value is not None and value > best:
                best = value
                if distributed.is_main():
                    save_weights(self.folder / BEST_WEIGHTS, model, config=self.config, label_set=self.label_set)
        self.log.write(record)
        values = " ".join(f"{key} {value:.2f}" for key in KEYS if (value := record.get(key)) is not None)
        average = record.get(PREFIX + self.key)
        note = f"  (moving average: {self.key} {average:.2f})" if average is not None else ""
        self.log.say(
            f"{iteration}/{self.config.train.iterations}  evaluation: {values}{note}; best {self.key} {best:.2f}"
        )

    def has_stalled(self) -> bool:
        """Whether the last run.patience evaluations were no better than the best before them."""
        patience = self.config.run.patience
        values = [
            max((record[key] for key in (self.key, PREFIX + self.key) if record.get(key) is not None), default=-1.0)
            for record in self.evaluations()
        ]
        return 0 < patience < len(values) and max(values[-patience:]) <= max(values[:-patience])
