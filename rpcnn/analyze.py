"""The paper's analyses: ``python -m rpcnn.analyze COMMAND RUN_OR_WEIGHTS… [--output DIR] [--key value]``.

    bounds    RUN             Table 1: true boxes, true parsing, true scores in place of the network's
    modes     RUN [BASELINE]  Table 6: label maps from the global segmentation, from people, from both
    scores    RUN             Fig. 5: true mIoU against box score and parsing score, with correlations
    gallery   RUN             Fig. 6: input, truth and prediction of --test.pictures images on one sheet
    ablation  RUN RUN …       Tables 3-5, 7, 8: mean and spread over seeds of every variant, changes beside the paper's

A run is a folder of rpcnn.train or a model.safetensors. Each command prints a table and writes it with a plot to
analysis/ in the run folder (ablation: to ablation/ here), or to --output. `python -m rpcnn.analyze COMMAND --help`
explains one and its options.
"""

import pathlib
import sys

import tyro

from rpcnn.analysis import ablation, bounds, gallery, modes, scores
from rpcnn.analysis.report import new_figure
from rpcnn.config import Config
from rpcnn.runtime import distributed

COMMANDS = {"bounds": bounds, "modes": modes, "scores": scores, "gallery": gallery, "ablation": ablation}


def main(arguments: list[str] | None = None):
    """Runs the command line; returns what the analysis found."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    name = arguments[0] if arguments else ""
    if name not in COMMANDS:
        print(__doc__)
        sys.exit(0 if name in ("-h", "--help") else f"rpcnn: the first argument must be one of {', '.join(COMMANDS)}")
    command = COMMANDS[name]
    first_option = next((i for i, text in enumerate(arguments) if text.startswith("-")), len(arguments))
    runs, options = [pathlib.Path(text) for text in arguments[1:first_option]], arguments[first_option:]
    prog = f"python -m rpcnn.analyze {name}"
    if {"-h", "--help"} & set(options):
        print(f"{command.__doc__}\n{command.run.__doc__}\n")
        tyro.cli(getattr(command, "Options", Config), args=["--help"], prog=f"{prog} RUN_OR_WEIGHTS")
    if not runs:
        sys.exit(f"rpcnn: {prog} wants a run folder or a model.safetensors before its options")
    try:
        if command is not gallery:
            new_figure(1, 1)  # that matplotlib is missing is said before the work, not after it
        return command.run(runs, options, prog)
    except (ValueError, OSError) as error:
        sys.exit(f"rpcnn: {error}")
    finally:
        distributed.stop()


if __name__ == "__main__":
    main()
