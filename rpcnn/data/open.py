"""The data set that a configuration asks for."""

import functools
import pathlib
from typing import Literal

from rpcnn.config import Config
from rpcnn.labels import CIHP as CIHP_LABELS
from rpcnn.labels import MHP_V2, LabelSet
from rpcnn.runtime.distributed import on_main

from .cihp import CIHP
from .painted.scene import write_cihp


def label_set(config: Config) -> LabelSet:
    """The labels of the configuration's data set."""
    return MHP_V2 if config.data.dataset == "mhpv2" else CIHP_LABELS


def open_dataset(config: Config, purpose: Literal["train", "eval"]):
    """The training or the evaluation split; paints it first where data.dataset is "painted" and it is not there.

    Raises:
        ValueError: the folder is not one of the data set, or holds no usable image.
    """
    data = config.data
    split = "train" if purpose == "train" else data.eval_split
    root = pathlib.Path(data.root)
    if data.dataset == "mhpv2":
        from .mhp import MHPv2

        return MHPv2(root, split)
    if data.dataset == "painted":
        # The folder's name holds what decides its scenes, so that another choice never meets old ones.
        options = {"train": 400, "val": 60, "short_side": (192, 256), "difficulty": 0.5} | data.options
        low, high = options["short_side"]
        name = f"{options['train']}+{options['val']}-{low}to{high}-d{options['difficulty']:g}-s{config.run.seed}"
        root = root / name
        paint = functools.partial(
            write_cihp,
            root,
            train=options["train"],
            val=options["val"],
            size=(low, high),
            seed=config.run.seed,
            difficulty=options["difficulty"],
        )
        on_main(paint)
    return CIHP(root, split)
