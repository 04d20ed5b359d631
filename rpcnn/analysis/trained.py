"""Loading a trained model for analysis and iterating over its evaluation split."""

import pathlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from tqdm import tqdm

from rpcnn.config import Config, change
from rpcnn.data.loader import make_eval_loader
from rpcnn.data.open import open_dataset
from rpcnn.data.sample import Sample
from rpcnn.inference.load import folder_of, load_pipeline, load_weights
from rpcnn.inference.pipeline import Pipeline
from rpcnn.model import RPRCNN
from rpcnn.runtime import distributed
from rpcnn.runtime.process import set_up_torch


@dataclass
class Trained:
    """A pipeline and the path of its weights."""

    weights: pathlib.Path
    """The run folder or file."""
    pipeline: Pipeline

    @property
    def model(self) -> RPRCNN:
        """The model, in eval mode."""
        return self.pipeline.model

    @property
    def config(self) -> Config:
        """The configuration of the weights with the changes of the command line."""
        return self.pipeline.config

    @property
    def name(self) -> str:
        """Name of the run folder."""
        return folder_of(self.weights).resolve().name

    @property
    def output(self) -> pathlib.Path:
        """Output folder: run.output, or analysis/ in the run folder."""
        return pathlib.Path(self.config.run.output or folder_of(self.weights) / "analysis")

    def samples(self) -> Iterator[Sample]:
        """Iterate once over the readable samples of the evaluation split, with a progress bar."""
        dataset = open_dataset(self.config, "eval")
        loader = make_eval_loader(dataset, num_workers=self.config.data.workers)
        for images, targets in tqdm(loader, desc=self.name, unit="image", disable=not sys.stderr.isatty()):
            if images:
                yield Sample(image=images[0], **targets[0])


def open_trained(weights: pathlib.Path, arguments: list[str], prog: str) -> Trained:
    """Load a trained model for analysis.

    Args:
        weights: a run folder or model.safetensors.
        arguments: command-line style changes of the configuration.
        prog: name of the command, for messages.

    Raises:
        ValueError: no weights of rpcnn, a contradictory configuration, or several processes.
        SystemExit: an unknown argument; tyro prints which.
    """
    loaded = load_weights(weights)
    config = change(loaded.config, arguments, prog)
    distributed.only_one(prog)
    device = distributed.pick_device(config.run.device)
    set_up_torch(config.run.seed, config.run.deterministic)
    return Trained(weights, load_pipeline(loaded, config, device))
