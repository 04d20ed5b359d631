"""A trained model and the images that it is analyzed on."""

import pathlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from tqdm import tqdm

from rpcnn.config import Config, change
from rpcnn.data.loader import make_eval_loader
from rpcnn.data.open import open_dataset
from rpcnn.data.sample import Sample
from rpcnn.inference.load import folder_of, load_pipeline
from rpcnn.inference.pipeline import Pipeline
from rpcnn.model import RPRCNN
from rpcnn.runtime import distributed
from rpcnn.runtime.checkpoint import load_weights
from rpcnn.runtime.process import set_up_torch


@dataclass
class Trained:
    """A pipeline and where its weights were read from."""

    weights: pathlib.Path
    """The run folder or file."""
    pipeline: Pipeline

    @property
    def model(self) -> RPRCNN:
        """In eval mode."""
        return self.pipeline.model

    @property
    def config(self) -> Config:
        """The configuration in force."""
        return self.pipeline.config

    @property
    def name(self) -> str:
        """The run folder's name."""
        return folder_of(self.weights).resolve().name

    @property
    def output(self) -> pathlib.Path:
        """Where an analysis writes: run.output, or analysis/ in the run folder."""
        return pathlib.Path(self.config.run.output or folder_of(self.weights) / "analysis")

    def samples(self) -> Iterator[Sample]:
        """Every readable image of the evaluation split once, as the data set gives it, under a progress bar."""
        dataset = open_dataset(self.config, "eval")
        loader = make_eval_loader(dataset, num_workers=self.config.data.workers)
        for images, targets in tqdm(loader, desc=self.name, unit="image", disable=not sys.stderr.isatty()):
            if images:
                yield Sample(image=images[0], **targets[0])


def open_trained(weights: pathlib.Path, arguments: list[str], prog: str) -> Trained:
    """Loads a run folder or model.safetensors; `arguments` are command-line style changes of its configuration.

    Raises:
        ValueError: no weights of rpcnn there, a contradictory configuration, or several processes.
        SystemExit: an unknown argument (tyro's message says which).
    """
    loaded = load_weights(weights)
    config = change(loaded.config, arguments, prog)
    distributed.only_one(prog)
    device = distributed.pick_device(config.run.device)
    set_up_torch(config.run.seed, config.run.deterministic)
    return Trained(weights, load_pipeline(loaded, config, device))
