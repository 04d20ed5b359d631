"""``rpcnn COMMAND …``: the same as ``python -m rpcnn.COMMAND …``."""

import importlib
import sys

from rpcnn.commands import UserError
from rpcnn.commands import run as run_command

COMMANDS = {
    "train": ("rpcnn.train", "train a model; without arguments, on scenes of people painted here"),
    "evaluate": ("rpcnn.evaluate", "all metrics of a trained model, or of anybody's predictions"),
    "predict": ("rpcnn.predict", "parse pictures"),
    "report": ("rpcnn.report", "a page to look at: pictures, predictions, errors, numbers"),
    "demo": ("rpcnn.demo", "the page with a drop zone: a model on your own pictures, on this machine"),
    "data": ("rpcnn.data.__main__", "check, show or paint a data set"),
    "analyze": ("rpcnn.analyze", "the paper's analyses of finished runs"),
    "export": ("rpcnn.export.__main__", "a trained model as ONNX or torch.export file"),
    "convert": ("rpcnn.convert", "the authors' checkpoints and ImageNet weights"),
    "info": ("rpcnn.info", "versions, devices, compiled kernels: for a bug report"),
    "selfcheck": ("rpcnn.selfcheck.__main__", "check and time the kernels on this machine"),
}


def main(arguments: list[str] | None = None):
    """Runs one of the commands; returns what it gives."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    name, *rest = arguments or ["--help"]
    if name in ("-h", "--help"):
        lines = [f"  {command:<10} {text}" for command, (_, text) in COMMANDS.items()]
        print("\n".join(["usage: rpcnn COMMAND …", "", *lines, "", "rpcnn COMMAND --help explains one."]))
        return None
    if name == "--version":
        from rpcnn import __version__

        print(f"rpcnn {__version__}")
        return None
    if name not in COMMANDS:
        raise UserError(f"the command must be one of {', '.join(COMMANDS)}, got {name!r}")
    return importlib.import_module(COMMANDS[name][0]).main(rest)


def run() -> None:
    """The entry point `rpcnn`."""
    sys.path.insert(0, "")  # as python -m does: modules of your own are found in this folder
    run_command(main)


if __name__ == "__main__":
    run()
