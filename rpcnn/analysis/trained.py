"""A trained model and the images that it is analysed on."""

import pathlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import tyro
from tqdm import tqdm

from rpcnn.config import Config, validate
from rpcnn.data.loader import make_eval_loader
from rpcnn.data.open import open_dataset
from rpcnn.data.sample import Sample
from rpcnn.inference.pipeline import detect_image
from rpcnn.model import RPRCNN, Detections
from rpcnn.runtime import distributed
from rpcnn.runtime.checkpoint import load_weights


@dataclass
class Trained:
    """A model in eval mode with its configuration."""

    weights: pathlib.Path
    """The run folder or file that it was read from."""
    model: RPRCNN
    config: Config
    device: torch.device

    @property
    def name(self) -> str:
        """The run folder's name."""
        return (self.weights if self.weights.is_dir() else self.weights.parent).resolve().name

    @property
    def output(self) -> pathlib.Path:
        """Where an analysis writes: run.output, or analysis/ in the run folder."""
        folder = self.weights if self.weights.is_dir() else self.weights.parent
        return pathlib.Path(self.config.run.output or folder / "analysis")

    def samples(self) -> Iterator[Sample]:
        """Every readable image of the evaluation split once, as the data set gives it, under a progress bar."""
        dataset = open_dataset(self.config, "eval")
        loader = make_eval_loader(dataset, num_workers=self.config.data.workers)
        for images, targets in tqdm(loader, desc=self.name, unit="image", disable=not sys.stderr.isatty()):
            if images:
                yield Sample(image=images[0], **targets[0])

    def detect(self, image: torch.Tensor) -> Detections:
        """People of an image uint8 [3, H, W] RGB, before they are painted."""
        return detect_image(self.model, image, self.config, self.device)


def open_trained(weights: pathlib.Path, arguments: list[str], prog: str) -> Trained:
    """Loads a run folder or model.safetensors; `arguments` are command-line style changes of its configuration.

    Raises:
        ValueError: no weights of rpcnn there, a contradictory configuration, or several processes.
        SystemExit: an unknown argument (tyro's message says which).
    """
    state, config = load_weights(weights)
    config.model.backbone_weights = ""
    config.run.output = ""
    config = tyro.cli(Config, default=config, args=arguments, prog=prog)
    validate(config)
    device = distributed.start(config.run.device)
    if distributed.world_size() > 1:
        raise ValueError(f"{prog} runs in one process, got {distributed.world_size()}")
    model = RPRCNN.from_config(config)
    model.load_state_dict(state)
    model = model.eval().to(device)
    if config.run.channels_last:
        model = model.to(memory_format=torch.channels_last)
    return Trained(weights, model, config, device)
