"""Evaluate a trained model: ``python -m rpcnn.evaluate RUN_OR_WEIGHTS [--key value …]``.

Prints mIoU, pixel and mean accuracy, AP^p, PCP, AP^r, AP^h and AP^bbox in one table; writes results.json and pictures
of input, ground truth and prediction. The configuration is stored with the weights; every field can be changed
on the command line (--data-root, --data.eval-split train, --inference.semantic-mode parsing, --inference.augment …).
--run.save-predictions FORMAT also writes the predictions, in a format of docs/formats.md.

To evaluate prediction files of any model: ``python -m rpcnn.evaluate --predictions DIR --data-root DIR``; see
``python -m rpcnn.evaluate --predictions --help``.
"""

from rpcnn.commands import UserError, output_folder, run, user_errors, wants_help, words_and_options
from rpcnn.config import Config, change
from rpcnn.evaluation.trained_model import evaluate
from rpcnn.inference.load import folder_of, load_pipeline, load_weights
from rpcnn.metrics import format_table
from rpcnn.runtime import distributed
from rpcnn.runtime.process import set_up_torch

PROG = "rpcnn evaluate RUN_OR_WEIGHTS"


def main(arguments: list[str] | None = None) -> dict:
    """Run the command; returns the metrics."""
    words, options = words_and_options(arguments)
    if any(option.split("=")[0] == "--predictions" for option in options):
        from rpcnn.evaluate_predictions import main as evaluate_predictions

        if words and not wants_help(options):
            raise UserError(f"evaluate takes a run or --predictions, not both; got {words[0]} and --predictions")
        return evaluate_predictions(["--help"] if wants_help(options) else options)
    if wants_help(options):
        print(__doc__)
        change(Config(), ["--help"], prog=PROG)
    if len(words) != 1:
        raise UserError("evaluate takes a run folder or a model.safetensors before its options")
    try:
        with user_errors():
            loaded = load_weights(words[0])
            config = change(loaded.config, options, prog=PROG)
            device = distributed.start(config.run.device)
            set_up_torch(config.run.seed, config.run.deterministic)
            pipeline = load_pipeline(loaded, config, device)
            folder = output_folder(config.run.output or folder_of(words[0]) / "evaluation")
            if config.inference.augment and distributed.is_main():
                print(f"rpcnn: test-time augmentation: {pipeline.describe()}")
            results = evaluate(pipeline, folder)
            if distributed.is_main():  # before stop(), after which every process has rank 0
                print(format_table(results, pipeline.label_set))
                print(f"rpcnn: results and pictures are in {folder}")
                if config.run.save_predictions:
                    print(f"rpcnn: predictions are in {folder / 'predictions'}, format {config.run.save_predictions}")
    finally:
        distributed.stop()
    return results


if __name__ == "__main__":
    run(main)
