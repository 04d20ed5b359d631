"""Opens the data set of a configuration."""

from typing import Literal

from rpcnn.config import Config
from rpcnn.labels import LabelSet

from .dataset import PeopleDataset
from .datasets import label_set_of, open_split


def label_set(config: Config) -> LabelSet:
    """Return the labels of the configuration's data set. Raises OSError and ValueError as :func:`open_dataset`."""
    return label_set_of(config.data.root, config.data.dataset, config.data.options)


def open_dataset(config: Config, purpose: Literal["train", "eval"]) -> PeopleDataset:
    """Open the training or the evaluation split of the configuration's data set.

    Raises:
        OSError, ValueError: unknown data set, split or option, or an invalid folder.
    """
    data = config.data
    split = "train" if purpose == "train" else data.eval_split
    return open_split(data.root, split, name=data.dataset, options=data.options, seed=config.run.seed)
