"""Trains on classes of one's own: ``python examples/own_data.py WEIGHTS [FOLDER] [--iterations N]``.

Writes a small data set of five parts into FOLDER/data, starts from the weights of another run (python -m rpcnn.train
makes runs/painted), trains on it and parses a picture that the network has not seen into FOLDER/predictions. The data
set is what docs/datasets.md describes: put your own pictures, maps and names in its place.
"""

import argparse
import json
import pathlib

import numpy as np
from PIL import Image

from rpcnn import Predictor
from rpcnn.data.painted.scene import paint_maps
from rpcnn.labels import CIHP
from rpcnn.train import main as train

PARTS = {
    "Head": ["Hat", "Hair", "Sunglasses", "Face"],
    "Upper-body": ["UpperClothes", "Dress", "Coat", "Torso-skin", "Scarf", "Glove"],
    "Lower-body": ["Socks", "Pants", "Skirt", "Left-leg", "Right-leg", "Left-shoe", "Right-shoe"],
    "Left-arm": ["Left-arm"],
    "Right-arm": ["Right-arm"],
}
"""Our parts, and the labels of painted people that each is made of."""


def write_data(root: pathlib.Path, images: dict[str, int]) -> None:
    """Writes labels.toml, and for every split so many painted scenes as a picture, a part map and a person map."""
    root.mkdir(parents=True, exist_ok=True)
    names = json.dumps(["Background", *PARTS])
    labels = f'name = "five parts"\nnames = {names}\npairs = [["Left-arm", "Right-arm"]]\n'
    (root / "labels.toml").write_text(labels, encoding="utf-8")
    part_of = np.zeros(CIHP.num_classes, np.uint8)
    for part, labels in enumerate(PARTS.values(), 1):
        part_of[[CIHP.names.index(label) for label in labels]] = part
    for number, (split, count) in enumerate(images.items()):
        for folder in ("images", "parts", "people"):
            (root / split / folder).mkdir(parents=True, exist_ok=True)
        for k in range(count):
            picture, labels, people = paint_maps((number, k), 160, 200, difficulty=0.0)
            Image.fromarray(picture).save(root / split / "images" / f"{k:03d}.jpg")
            Image.fromarray(part_of[labels]).save(root / split / "parts" / f"{k:03d}.png")
            Image.fromarray(people).save(root / split / "people" / f"{k:03d}.png")


def main(arguments: list[str] | None = None) -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("weights", help="run folder to start from")
    parser.add_argument("folder", nargs="?", default="runs/own_data", help="for the data and all results")
    parser.add_argument("--iterations", default="150")
    parser.add_argument("--images", type=int, default=60, help="how many to train on")
    options = parser.parse_args(arguments)

    folder = pathlib.Path(options.folder)
    data, run = folder / "data", folder / "run"
    write_data(data, {"train": options.images, "val": 8})
    train([
        f"{options.weights}/config.toml",  # the same network: all layers fit but those of the classes
        *("--init-weights", options.weights, "--train.init-classes", "same-names"),
        *("--data.dataset", "folder", "--data-root", str(data), "--output", str(run), "--run.evaluate"),
        *("--iterations", options.iterations, "--train.learning-rate", "0.004", "--train.warmup-iterations", "10"),
    ])  # fmt: skip

    picture = data / "val" / "images" / "000.jpg"
    result = Predictor(run)(picture)
    result.save(folder / "predictions", picture.stem, Image.open(picture))
    print(f"{len(result)} people with the parts {', '.join(result.label_set.names[1:])}: {folder / 'predictions'}")


if __name__ == "__main__":
    main()
