"""Write a trained model for other software: ``python -m rpcnn.export RUN [--format onnx] [--output FILE]``.

The file takes pictures of any size, float32 [N, 3, H, W] RGB in 0..255, and gives boxes, scores, the maps of people and
the global map. docs/export.md has its signature, and what remains to do after it. Formats: onnx (any runtime) and torch
(torch.export).
"""

import pathlib
import time
from dataclasses import dataclass
from typing import Literal

import torch
import tyro

from rpcnn.commands import run, user_errors
from rpcnn.inference.load import folder_of, load_pipeline, load_weights
from rpcnn.predict import find_pictures
from rpcnn.runtime import distributed

from .check import as_table, compare
from .exported import open_exported, settings_of
from .network import InferenceNetwork
from .onnx import onnx_operators, save_onnx
from .program import export_program, save_torch

SAVE = {"onnx": save_onnx, "torch": save_torch}


@dataclass
class Arguments:
    """The command line of rpcnn export."""

    weights: tyro.conf.Positional[str]
    """Run folder or model.safetensors."""
    format: Literal["onnx", "torch"] = "onnx"
    """What to write."""
    output: str = ""
    """File to write; empty: model.onnx or model.pt2 in the run folder."""
    check: str = ""
    """Picture, folder or quoted pattern: run the file on these pictures and print how far it differs from the model."""


def main(arguments: list[str] | None = None) -> pathlib.Path:
    """Run the command; returns the path of the file."""
    options = tyro.cli(Arguments, args=arguments, prog="rpcnn export", description=__doc__)
    with user_errors():
        distributed.only_one("rpcnn export")
        pictures = [source.path for source in find_pictures([options.check])] if options.check else []
        loaded = load_weights(options.weights)
        loaded.config.run.precision = "fp32"  # in which exported files compute
        suffix = "onnx" if options.format == "onnx" else "pt2"
        path = pathlib.Path(options.output or folder_of(options.weights) / f"model.{suffix}")
        if not path.parent.is_dir():
            raise ValueError(f"--output: there is no folder {path.parent}")
        if path.suffix != f".{suffix}":
            raise ValueError(f"--output must end in .{suffix} for --format {options.format}, got {path}")
        if options.format == "onnx":
            onnx_operators()  # an error now, not after a minute
        pipeline = load_pipeline(loaded, loaded.config, torch.device("cpu"))
        settings = settings_of(loaded.config, loaded.label_set)
        start = time.perf_counter()
        program = export_program(InferenceNetwork(pipeline.model.to(memory_format=torch.contiguous_format)))
        SAVE[options.format](program, path, settings)
        size, seconds = path.stat().st_size / 2**20, time.perf_counter() - start
        print(f"rpcnn: {path}, {size:.0f} MiB, written in {seconds:.0f} s")
        if pictures:
            rows = list(compare(pipeline, open_exported(path), pictures))
            print(as_table([picture.name for picture in pictures], rows))
    return path


if __name__ == "__main__":
    run(main)
