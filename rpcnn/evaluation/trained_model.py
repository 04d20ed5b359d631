"""Evaluation of a trained model on the evaluation split of its data set."""

import json
import pathlib
import sys
from collections.abc import Sequence

from tqdm import tqdm

from rpcnn.data.loader import make_eval_loader
from rpcnn.data.open import open_dataset
from rpcnn.data.sample import Sample, Truth
from rpcnn.formats import Prediction, make_format
from rpcnn.inference.pipeline import Pipeline
from rpcnn.metrics import DEFAULT_METRICS, Metric, ParsingEvaluator
from rpcnn.runtime import distributed
from rpcnn.visualize import panel


def evaluate(
    pipeline: Pipeline, folder: pathlib.Path | None = None, metrics: Sequence[Metric] = DEFAULT_METRICS
) -> dict:
    """Evaluate a model on the evaluation split; the images are split over the processes.

    Args:
        folder: for results.json, for predictions/ in the format of run.save_predictions, and for pictures of input,
            ground truth and prediction of the first run.pictures images; None writes nothing.
        metrics: by default those of the paper.

    Returns:
        Metrics in percent with the keys of rpcnn.metrics, the same on every process.

    Raises:
        ValueError, OSError: the labels of the data set differ from those of the model; a file cannot be read or
            written, in this process or another.
    """
    config, label_set = pipeline.config, pipeline.label_set
    dataset = open_dataset(config, "eval")
    if dataset.labels.names != label_set.names:
        pairs = zip(label_set.names, dataset.labels.names, strict=False)
        first = next((f"; the first that differ: {ours!r}, {theirs!r}" for ours, theirs in pairs if ours != theirs), "")
        raise ValueError(
            f"evaluate: the model has the {label_set.num_classes} labels of {label_set.name}, "
            f"the data set {config.data.root} the {dataset.labels.num_classes} of {dataset.labels.name}{first}"
        )
    evaluator = ParsingEvaluator(label_set.num_classes, config.variant.skip_empty, metrics=metrics)
    rank, processes = distributed.rank(), distributed.world_size()
    loader = make_eval_loader(dataset, num_workers=config.data.workers, rank=rank, world_size=processes)
    format, saved = None, None
    if folder and config.run.save_predictions:
        format, saved = make_format(config.run.save_predictions), folder / "predictions"
    quiet = not distributed.is_main() or not sys.stderr.isatty()
    batches = tqdm(loader, desc="evaluating", unit="image", disable=quiet)
    numbers = range(rank, len(dataset), processes)
    with distributed.failing_together():
        for number, (images, targets) in zip(numbers, batches, strict=True):
            if not images:
                continue
            sample = Sample(image=images[0], **targets[0])
            if str(sample["id"]) != pathlib.PurePath(str(sample["id"])).name:  # it names files below
                raise ValueError(f"evaluate: an image's id must be a plain file name, got {sample['id']!r}")
            result = pipeline(sample["image"])
            evaluator.add_result(result, Truth.of(sample), sample["id"])
            if format:
                format.write(saved, str(sample["id"]), Prediction.of(result))
            if folder and number < config.run.pictures:
                (folder / "pictures").mkdir(parents=True, exist_ok=True)
                picture = panel(sample["image"].permute(1, 2, 0).numpy(), sample["label_map"].numpy(), result)
                picture.save(folder / "pictures" / f"{sample['id']}.png")
    states, formats = zip(*distributed.gather_objects((evaluator.state(), format)), strict=True)

    def finish() -> dict:
        for state in states[1:]:  # the first is the state of the main process itself
            evaluator.merge(state)
        results = evaluator.summarize()
        if not results["images"]:
            raise ValueError(f"evaluate: none of the {len(dataset)} images of {config.data.root} can be used")
        if format:
            format.finish(saved, formats[1:])
        if folder:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "results.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
        return results

    return distributed.on_main(finish)
