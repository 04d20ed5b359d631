"""Repeat the analyses of the paper: ``python -m rpcnn.analyze COMMAND RUN_OR_WEIGHTS… [--output DIR] [--key value]``.

    bounds    RUN             Table 1: metrics with ground-truth boxes, parsing maps or scores
    modes     RUN [BASELINE]  Table 6: label maps from the global segmentation, from people, from both
    scores    RUN             Fig. 5: true mIoU against box score and parsing score, with correlations
    gallery   RUN             Fig. 6: input, ground truth and prediction of --run.pictures images on one sheet
    curves    RUN [RUN …]     learning curves side by side, and what differs between the runs
    ablation  RUN RUN …       Tables 3-5, 7, 8: mean and standard deviation over seeds, changes beside the paper's

A run is a folder of rpcnn.train or a model.safetensors. Each command prints a table and writes it with a plot to
analysis/ in the run folder (ablation and curves: to ablation/ and curves/ here), or to --output. `python -m
rpcnn.analyze COMMAND --help` explains one and its options.
"""

import pathlib

import tyro

from rpcnn.analysis import ablation, bounds, curves, gallery, modes, scores
from rpcnn.analysis.report import new_figure
from rpcnn.commands import UserError, run, user_errors, wants_help, words_and_options
from rpcnn.config import Config

COMMANDS = {
    "bounds": bounds,
    "modes": modes,
    "scores": scores,
    "gallery": gallery,
    "curves": curves,
    "ablation": ablation,
}


def main(arguments: list[str] | None = None):
    """Run the command; returns the results of the analysis."""
    words, options = words_and_options(arguments)
    if not words and wants_help(options):
        print(__doc__)
        return None
    if not words or words[0] not in COMMANDS:
        raise UserError(
            f"analyze: the first word must be one of {', '.join(COMMANDS)}, got {words[0] if words else ''!r}"
        )
    command, runs = COMMANDS[words[0]], [pathlib.Path(text) for text in words[1:]]
    prog = f"rpcnn analyze {words[0]}"
    if wants_help(options):
        print(f"{command.__doc__}\n{command.run.__doc__}\n")
        tyro.cli(getattr(command, "Options", Config), args=["--help"], prog=f"{prog} RUN_OR_WEIGHTS")
    if not runs:
        raise UserError(f"{prog} takes a run folder or a model.safetensors before its options")
    with user_errors():
        if command is not gallery:
            new_figure(1, 1)  # raises if matplotlib is missing, before the work
        return command.run(runs, options, prog)


if __name__ == "__main__":
    run(main)
