"""Parses a picture, prints the people in it and saves four files.

    python examples/predict.py photo.jpg --weights runs/painted --output predictions

Weights are a run folder of `python -m rpcnn.train` or a model.safetensors.
"""

import argparse
import pathlib

import numpy as np

from rpcnn import Predictor


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("picture")
    parser.add_argument("--weights", default="runs/painted")
    parser.add_argument("--output", default="predictions")
    parser.add_argument("--min-score", type=float, default=0.3, help="people below this parsing score are left out")
    options = parser.parse_args()

    predictor = Predictor(options.weights)
    people = predictor(options.picture).above(options.min_score)
    names = predictor.label_set.names

    print(f"{options.picture}: {len(people)} people")
    for score, box, person in zip(people.scores, people.boxes, people.people, strict=True):
        pixels = np.bincount(person.numpy().ravel(), minlength=len(names))  # of each class in the person's own map
        parts = ", ".join(names[label] for label in np.argsort(-pixels[1:]) + 1 if pixels[label])
        print(f"  score {score:.2f}, box {box.round().int().tolist()}: {parts or 'no part'}")

    picture = pathlib.Path(options.picture)
    for path in people.save(options.output, picture.stem, picture):
        print(f"  written: {path}")


if __name__ == "__main__":
    main()
