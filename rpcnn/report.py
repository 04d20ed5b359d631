"""Make a page to look at: ``python -m rpcnn.report RUN_OR_WEIGHTS [SECOND_RUN] [--key value …]``.

    rpcnn report runs/painted                    the evaluation split: input, truth, prediction and errors side by side
    rpcnn report runs/one runs/two               two models beside each other
    rpcnn report predictions --pictures photos   what rpcnn.predict wrote, on the pictures it was made of

The page is a folder: open index.html in a browser. It needs no server and no network. Sort and filter the pictures by
score, IoU, class or failure; under the pointer stand the part and the person; numbers and curves are below.

--output      folder of the page (default: page/ in the run folder or in the folder of predictions)
--limit       largest number of images (default 500)
--pictures    for predictions: folder of the pictures; without it the overlays are shown
Every other option changes the configuration of the run, as in rpcnn.evaluate (--data-root, --data.eval-split …).
"""

import pathlib
import sys
from collections.abc import Iterator

import numpy as np
from PIL import Image
from tqdm import tqdm

from rpcnn.analysis.curves import read_records
from rpcnn.analysis.trained import open_trained
from rpcnn.commands import UserError, output_folder, run, user_errors, wants_help, words_and_options
from rpcnn.data.sample import Truth
from rpcnn.formats.prediction import as_entries, as_number, read_png
from rpcnn.inference.load import folder_of
from rpcnn.inference.results import ParsingResult
from rpcnn.labels import CIHP, MHP_V2, LabelSet
from rpcnn.metrics import DEFAULT_METRICS, ParsingEvaluator
from rpcnn.page.items import Item, Maps, instances_of
from rpcnn.page.write import PageWriter
from rpcnn.pictures import files_in, load_picture
from rpcnn.strict_json import read_json

OWN = {"--output": "", "--limit": "500", "--pictures": ""}


def main(arguments: list[str] | None = None) -> pathlib.Path:
    """Run the command; returns the path of index.html."""
    words, options = words_and_options(arguments)
    if wants_help(options):
        print(__doc__)
        raise SystemExit(0)
    if not words:
        raise UserError("report takes a run, two runs, or a folder of predictions; --help explains it")
    own, rest = split_options(options)
    with user_errors():
        limit = int(own["--limit"]) if own["--limit"].isdigit() else 0
        if limit < 1:
            raise ValueError(f"--limit must be a number of at least 1, got {own['--limit']!r}")
        source = pathlib.Path(words[0])
        if (
            len(words) == 1
            and source.is_dir()
            and files_in(source, "**/*_labels.png")
            and not any(source.glob("*.safetensors"))
        ):
            if rest:
                raise ValueError(f"report: {rest[0]} belongs to a run; {source} is a folder of predictions")
            page = predictions_page(source, own["--output"], own["--pictures"], limit)
        elif len(words) > 2:
            raise ValueError(f"report takes at most two runs, got {len(words)}")
        else:
            page = runs_page([pathlib.Path(word) for word in words], rest, own["--output"], limit)
    print(f"rpcnn: open {page.resolve()}")
    return page


def split_options(options: list[str]) -> tuple[dict[str, str], list[str]]:
    """This command's own options, and those of the configuration."""
    own, rest, waiting = dict(OWN), [], iter(options)
    for option in waiting:
        name, equals, value = option.partition("=")
        if name not in own:
            rest.append(option)
        elif equals:
            own[name] = value
        elif (following := next(waiting, None)) is None:
            raise UserError(f"report: {name} needs a value")
        else:
            own[name] = following
    return own, rest


def runs_page(weights: list[pathlib.Path], options: list[str], output: str, limit: int) -> pathlib.Path:
    """The page of one or two models on the evaluation split."""
    trained = [open_trained(path, options, "rpcnn report") for path in weights]
    label_set = trained[0].pipeline.label_set
    if any(other.pipeline.label_set.names != label_set.names for other in trained):
        raise ValueError(f"report: {weights[0]} and {weights[1]} have different labels")
    names = [one.name for one in trained]
    if len(set(names)) < len(names):
        names = [str(path) for path in weights]
    folder = output_folder(output or folder_of(weights[0]) / "page")
    writer = PageWriter(folder, f"{' and '.join(names)} on {trained[0].config.data.root}", names, label_set)
    evaluators = [ParsingEvaluator(label_set.num_classes, one.config.variant.skip_empty) for one in trained]
    for number, sample in enumerate(trained[0].samples()):
        if number == limit:
            break
        people = sample["person_maps"].numpy()
        label_map = sample["label_map"].numpy()
        truth = Maps(label_map, instances_of(people, label_map.shape), [{} for _ in people])
        results = [one.pipeline(sample["image"]) for one in trained]
        for evaluator, result in zip(evaluators, results, strict=True):
            evaluator.add_result(result, Truth.of(sample), sample["id"])
        photo = sample["image"].permute(1, 2, 0).numpy()
        writer.add(Item(str(sample["id"]), photo, [maps_of(result) for result in results], truth))
    titles = {key: title for metric in DEFAULT_METRICS for title, key in metric.columns}
    tables = {}
    for name, evaluator in zip(names, evaluators, strict=True):
        results = evaluator.summarize()
        tables[name] = {title: results.get(key) for key, title in titles.items()}
    curves = read_records(folder_of(weights[0])) if (folder_of(weights[0]) / "metrics.jsonl").is_file() else []
    return writer.finish(tables, curves)


def maps_of(result: ParsingResult) -> Maps:
    """What the page shows of a result."""
    arrays = result.numpy()
    return Maps(arrays["label_map"], arrays["instance_map"], result.record()["people"])


def predictions_page(folder: pathlib.Path, output: str, pictures: str, limit: int) -> pathlib.Path:
    """The page of what rpcnn.predict wrote."""
    found = files_in(folder, "**/*_labels.png")[:limit]
    label_set = label_set_of(found[0].with_name(found[0].name.removesuffix("_labels.png") + ".json"))
    writer = PageWriter(output_folder(output or folder / "page"), f"Predictions in {folder}", ["Prediction"], label_set)
    for item in tqdm(
        predicted_items(folder, found, pictures), total=len(found), unit="image", disable=not sys.stderr.isatty()
    ):
        writer.add(item)
    return writer.finish()


def predicted_items(folder: pathlib.Path, found: list[pathlib.Path], pictures: str) -> Iterator[Item]:
    """The predictions in a folder, as items of the page."""
    for path in found:
        stem = path.name.removesuffix("_labels.png")
        name = (path.parent / stem).relative_to(folder).as_posix()
        record = read_record(path.with_name(f"{stem}.json"))
        labels, instances = read_png(path), read_png(path.with_name(f"{stem}_instances.png"), wide=True)
        if instances.shape != labels.shape:
            raise ValueError(f"report: {path} and {stem}_instances.png must be maps of one size")
        known, most = len(record["labels"]), labels.max(initial=0)
        if most >= known:
            raise ValueError(f"report: {path}: labels must be below {known}, the names in {stem}.json, got {most}")
        yield Item(name, photo_of(path, name, pictures, labels.shape), [Maps(labels, instances, record["people"])])


def photo_of(path: pathlib.Path, name: str, pictures: str, shape: tuple[int, ...]) -> np.ndarray:
    """The picture of a prediction from the folder `pictures`, or its overlay."""
    if pictures:
        beside = pathlib.Path(pictures) / name
        for candidate in sorted(beside.parent.glob(f"{beside.name}.*")) if beside.parent.is_dir() else []:
            photo = np.asarray(load_picture(candidate))
            if photo.shape[:2] == shape:
                return photo
        raise ValueError(f"report: --pictures: {pictures} has no picture {name}.* of {shape[1]} x {shape[0]} pixels")
    overlay = path.with_name(path.name.removesuffix("_labels.png") + "_overlay.png")
    picture = Image.fromarray(load_picture(overlay))
    return np.asarray(picture.resize((shape[1], shape[0])))  # small ones are enlarged


def read_record(path: pathlib.Path) -> dict:
    """The JSON file of a prediction. Raises ValueError if it is none of rpcnn.predict."""
    record = read_json(path)
    try:
        if not isinstance(record, dict) or not {"people", "labels"} <= record.keys():
            raise ValueError("must be an object with people and labels")
        people = as_entries(record["people"], "people")
        for i, person in enumerate(people):
            for key in ("score", "box_score", "iou_score"):
                as_number(person.get(key, 0.0), f"people[{i}].{key}")
            if not isinstance(person.get("parts", []), list):
                raise ValueError(f"people[{i}].parts must be a list")
        names = record["labels"]
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise ValueError("labels must be a list of texts")
    except ValueError as error:
        raise ValueError(f"report: {path} is no record of rpcnn.predict: {error}") from None
    return record


def label_set_of(path: pathlib.Path) -> LabelSet:
    """The label set whose names a prediction holds; unknown names get the colors of CIHP in turn."""
    record = read_record(path)
    names = tuple(record["labels"])
    for known in (CIHP, MHP_V2):
        if known.names == names:
            return known
    return LabelSet(str(record.get("label_set", "labels")), names)


if __name__ == "__main__":
    run(main)
