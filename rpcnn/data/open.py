"""The data set that a configuration asks for."""

import pathlib
from typing import Literal

from rpcnn.config import Config
from rpcnn.runtime.distributed import barrier, is_main

from .cihp import CIHP
from .painted.scene import write_cihp


def open_dataset(config: Config, purpose: Literal["train", "eval"]):
    """The training or the evaluation split; paints it first where data.dataset is "painted" and it is not there.

    Raises:
        ValueError: the folder is not one of the data set, or holds no usable image.
    """
    data = config.data
    split = data.train_split if purpose == "train" else data.eval_split
    root = pathlib.Path(data.root)
    if data.dataset == "mhpv2":
        from .mhp import MHPv2

        return MHPv2(root, split)
    if data.dataset == "painted":
        # The folder's name holds what decides its scenes, so that another choice never meets old ones.
        low, high = data.painted_short_side
        name = f"{data.painted_train}+{data.painted_val}-{low}to{high}-d{data.painted_difficulty:g}-s{config.run.seed}"
        root = root / name
        if is_main():
            write_cihp(
                root,
                train=data.painted_train,
                val=data.painted_val,
                size=(low, high),
                seed=config.run.seed,
                difficulty=data.painted_difficulty,
            )
        barrier()
    return CIHP(root, split)
