"""Evaluates a trained model: ``python -m rpcnn.evaluate RUN_OR_WEIGHTS [--key value …]``.

Prints mIoU, pixel and mean accuracy, AP^p_50, AP^p_vol, PCP_50 and AP^bbox in one table, writes results.json and
pictures of input, truth and prediction. The configuration travels with the weights; every field of it can be given
on the command line (--data-root, --data.eval-split train, --test.semantic-mode parsing, --test.augment …).
--test.save-predictions FORMAT also writes the predictions, in a format of docs/formats.md.

Evaluates anybody's predictions, without a model: ``python -m rpcnn.evaluate --predictions DIR --data-root DIR``;
see ``python -m rpcnn.evaluate --predictions --help``.
"""

import json
import pathlib
import sys
from collections.abc import Sequence

import torch
import tyro
from tqdm import tqdm

from rpcnn.config import Config, validate
from rpcnn.data.loader import make_eval_loader
from rpcnn.data.open import open_dataset
from rpcnn.data.sample import Sample, Truth
from rpcnn.formats import Prediction, make_format
from rpcnn.inference.pipeline import describe_augmentation, parse_image
from rpcnn.labels import LabelSet
from rpcnn.metrics import DEFAULT_METRICS, Metric, ParsingEvaluator, format_table
from rpcnn.model import RPRCNN
from rpcnn.runtime import distributed
from rpcnn.runtime.checkpoint import load_weights
from rpcnn.visualize import panel


def evaluate(
    model: RPRCNN,
    config: Config,
    device: torch.device,
    folder: pathlib.Path | None = None,
    pictures: int = 0,
    metrics: Sequence[Metric] = DEFAULT_METRICS,
) -> dict:
    """All metrics on the evaluation split, in percent; the images are shared out over the processes.

    Args:
        model: on `device`; it is put into eval mode.
        folder: where results.json and pictures/ go; None writes nothing.
        pictures: how many pictures of input, truth and prediction to write.
        metrics: what is measured; see :class:`rpcnn.metrics.Metric`.

    Returns:
        The keys of rpcnn.metrics, the same on every process.
    """
    model.eval()
    dataset = open_dataset(config, "eval")
    evaluator = ParsingEvaluator(config.labels.num_classes, config.test.skip_empty, metrics=metrics)
    loader = make_eval_loader(
        dataset, num_workers=config.data.workers, rank=distributed.rank(), world_size=distributed.world_size()
    )
    format, saved = None, None
    if folder and config.test.save_predictions:
        if distributed.world_size() > 1 and config.test.save_predictions == "coco":
            raise ValueError("test.save_predictions: coco is one file and cannot be written by several processes")
        format, saved = make_format(config.test.save_predictions), folder / "predictions"
    drawn = 0
    quiet = not distributed.is_main() or not sys.stderr.isatty()
    for images, targets in tqdm(loader, desc="evaluating", unit="image", disable=quiet):
        if not images:
            continue
        sample = Sample(image=images[0], **targets[0])
        result = parse_image(model, sample["image"], config, device)
        evaluator.add_result(result, Truth.of(sample), sample["id"])
        if format:
            format.write(saved, str(sample["id"]), Prediction.of(result))
        if folder and distributed.is_main() and drawn < pictures:
            drawn += 1
            (folder / "pictures").mkdir(parents=True, exist_ok=True)
            picture = panel(sample["image"].permute(1, 2, 0).numpy(), sample["label_map"].numpy(), result)
            picture.save(folder / "pictures" / f"{sample['id']}.png")
    if format:
        format.finish(saved)
    for state in distributed.gather_objects(evaluator.state())[1:]:
        evaluator.merge(state)
    results = distributed.gather_objects(evaluator.summarize() if distributed.is_main() else None)[0]
    if folder and distributed.is_main():
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "results.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    return results


def format_report(results: dict, labels: LabelSet) -> str:
    """The metrics as a plain-text table."""
    return format_table(results, labels)


def main(arguments: list[str] | None = None) -> dict:
    """Runs the command line; returns the metrics."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if any(argument.split("=")[0] == "--predictions" for argument in arguments):
        from rpcnn.evaluate_predictions import main as evaluate_predictions

        return evaluate_predictions(["--help"] if {"-h", "--help"} & set(arguments) else arguments)
    if not arguments or arguments[0].startswith("-"):
        print(__doc__)
        if {"-h", "--help"} & set(arguments):
            tyro.cli(Config, args=["--help"], prog="python -m rpcnn.evaluate RUN_OR_WEIGHTS")
        sys.exit("rpcnn: the first argument must be a run folder or a model.safetensors")
    weights = pathlib.Path(arguments[0])
    try:
        state, config = load_weights(weights)
        config.model.backbone_weights = ""
        config.run.output = ""
        config = tyro.cli(Config, default=config, args=arguments[1:], prog="python -m rpcnn.evaluate RUN_OR_WEIGHTS")
        validate(config)
        device = distributed.start(config.run.device)
        model = RPRCNN.from_config(config)
        model.load_state_dict(state)
        folder = pathlib.Path(config.run.output or (weights if weights.is_dir() else weights.parent) / "evaluation")
        if config.test.augment and distributed.is_main():
            print(f"rpcnn: {describe_augmentation(config)}")
        results = evaluate(model.to(device), config, device, folder, config.test.pictures)
    except ValueError as error:
        sys.exit(f"rpcnn: {error}")
    finally:
        distributed.stop()
    if distributed.is_main():
        print(format_report(results, config.labels))
        print(f"rpcnn: results and pictures are in {folder}")
    return results


if __name__ == "__main__":
    main()
