"""Try a model on your own pictures, in a browser: ``python -m rpcnn.demo [RUN_OR_WEIGHTS] [--port N]``.

Serves the page of rpcnn.report with a drop zone on this machine alone (127.0.0.1) and prints its address, which holds a
random token. Pictures are parsed one at a time, kept in a temporary folder and gone with Ctrl-C. Nothing is fetched
from the network and nothing is sent there.
"""

import pathlib
import signal
import tempfile
from dataclasses import dataclass
from typing import Annotated

import tyro

from rpcnn.commands import run, user_errors
from rpcnn.inference.load import SHIPPED
from rpcnn.inference.predictor import Predictor
from rpcnn.page.items import Item, Maps
from rpcnn.page.serve import PageServer
from rpcnn.page.write import PageWriter
from rpcnn.pictures import MAX_PIXELS, load_picture
from rpcnn.runtime import distributed


@dataclass
class Arguments:
    """The command line of rpcnn.demo. Options that are not given keep the value of the model's configuration."""

    weights: tyro.conf.Positional[str] = SHIPPED
    """Run folder or model.safetensors; photo is the model that comes with rpcnn."""
    port: Annotated[int, tyro.conf.arg(metavar="N")] = 0
    """Port on 127.0.0.1; 0 takes a free one."""
    device: str = "auto"
    """auto (CUDA where there is one), cpu, cuda or cuda:N."""
    min_parsing_score: Annotated[float | None, tyro.conf.arg(metavar="0..1")] = None
    """Smallest parsing score of the people in the combined map."""
    test_short_side: Annotated[int | None, tyro.conf.arg(aliases=["--short-side"], metavar="PIXELS")] = None
    """Short side in pixels that images are resized to."""
    test_long_side_max: Annotated[int | None, tyro.conf.arg(metavar="PIXELS")] = None
    """Largest long side in pixels after resizing."""
    max_megabytes: Annotated[float, tyro.conf.arg(metavar="MB")] = 50
    """Largest file that is taken."""
    max_pixels: Annotated[int, tyro.conf.arg(metavar="PIXELS")] = MAX_PIXELS
    """Pictures with more pixels are not parsed: a file of kilobytes may unpack to gigabytes."""


def main(arguments: list[str] | None = None) -> None:
    """Run the command, until Ctrl-C."""
    options = tyro.cli(Arguments, args=arguments, prog="rpcnn demo", description=__doc__)
    names = ("min_parsing_score", "test_short_side", "test_long_side_max")
    changes = {name: value for name in names if (value := getattr(options, name)) is not None}
    with user_errors(), tempfile.TemporaryDirectory(prefix="rpcnn-demo-") as folder:
        distributed.only_one("rpcnn demo")
        if not 0 <= options.port <= 65535:
            raise ValueError(f"--port must be in 0..65535, got {options.port}")
        if not 0 < options.max_megabytes <= 4096:
            raise ValueError(f"--max-megabytes must be in 0..4096, got {options.max_megabytes:g}")
        predictor = Predictor(options.weights, options.device, max_pixels=options.max_pixels, **changes)
        server = make_server(
            predictor, pathlib.Path(folder), f"Try {options.weights}", options.max_megabytes, port=options.port
        )
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # the folder goes in any case
        with server:
            try:
                print(f"rpcnn: open {server.url} (Ctrl-C ends it)", flush=True)
                server.serve_forever()
            except KeyboardInterrupt:
                print("\nrpcnn: the demo ended; its pictures are gone")


def make_server(
    predictor: Predictor, folder: pathlib.Path, title: str, max_megabytes: float = 50, port: int = 0
) -> PageServer:
    """The server of a model, which keeps its pictures in `folder`. Raises OSError if the port cannot be used."""

    def parse(path: pathlib.Path, name: str) -> Item:
        photo = load_picture(path, predictor.max_pixels)
        result = predictor(photo).above(predictor.config.inference.min_parsing_score)  # those of the label map
        arrays = result.numpy()
        maps = Maps(arrays["label_map"], arrays["instance_map"], result.record()["people"])
        return Item(name, photo, [maps])

    writer = PageWriter(folder, title, ["Prediction"], predictor.label_set)
    return PageServer(writer, parse, max_bytes=int(max_megabytes * 1e6), port=port)


if __name__ == "__main__":
    run(main)
