"""The formats that the evaluation servers of human parsing take."""

from pathlib import Path

import numpy as np

from rpcnn.labelmaps.people import NumberedPersonMaps
from rpcnn.pictures import files_in

from .format import Format
from .prediction import Prediction, flatten, read_columns, read_png, write_png


class CihpServer(Format):
    """CIHP's format: global_parsing/<stem>.png and, for part instances, instance_parsing/<stem>.png and <stem>.txt.

    The PNG numbers the part instances 1, 2, …; line i of the text file is "class score" of instance i. `write` gives
    parts the score of their person. The format does not store which parts belong to one person, so AP^p, PCP, AP^h and
    AP^bbox are undefined. A pixel belongs to one instance.
    """

    overlapping = False
    knows_people = False

    def detect(self, folder: Path) -> bool:
        return (folder / "instance_parsing").is_dir()

    def stems(self, folder: Path) -> list[str]:
        return sorted(path.stem for path in files_in(folder / "global_parsing", "*.png"))

    def read(self, folder: Path, stem: str) -> Prediction:
        label_map = read_png(folder / "global_parsing" / f"{stem}.png")
        path, text = folder / "instance_parsing" / f"{stem}.png", folder / "instance_parsing" / f"{stem}.txt"
        numbers, rows = read_png(path, wide=True), read_columns(text, ("class", "score"))
        if numbers.shape != label_map.shape or numbers.max(initial=0) > len(rows):
            raise ValueError(
                f"{path}: must have global_parsing's size {label_map.shape} and numbers up to the {len(rows)} lines of "
                f"{text.name}, got {numbers.shape} and {numbers.max(initial=0)}"
            )
        classes = rows[:, 0]
        if ((classes != np.round(classes)) | (classes < 1) | (classes > 254)).any():
            raise ValueError(f"{text}: classes must be whole numbers from 1 on, got {classes.tolist()}")
        part_maps = NumberedPersonMaps(np.append(0, classes).astype(np.uint8)[numbers], numbers, len(rows))
        no_people = np.zeros((0, *label_map.shape), np.uint8)
        return Prediction(label_map, no_people, np.zeros(0), part_maps=part_maps, part_scores=rows[:, 1])

    def write(self, folder: Path, stem: str, prediction: Prediction) -> None:
        write_png(folder / "global_parsing" / f"{stem}.png", prediction.label_map)
        labels, person_numbers = flatten(prediction.person_maps, prediction.scores)
        numbers, lines = np.zeros(labels.shape, np.int32), []
        for i, score in enumerate(prediction.scores, 1):
            on_person = person_numbers == i
            for label in np.flatnonzero(np.bincount(labels[on_person], minlength=1)):
                lines.append(f"{label} {score:.9g}\n")
                numbers[on_person & (labels == label)] = len(lines)
        write_png(folder / "instance_parsing" / f"{stem}.png", numbers)
        (folder / "instance_parsing" / f"{stem}.txt").write_text("".join(lines), encoding="utf-8")


class MhpServer(Format):
    """The format of MHP's evaluation: a global label map and a map of person numbers; people do not overlap.

    global_parsing/<stem>.png, instance_segmentation/<stem>.png (people numbered 1, 2, …) and
    instance_segmentation/<stem>.txt, where line i is the score of person i. A person's label map is the global map at
    the pixels with the person's number.
    """

    overlapping = False
    knows_people = True

    def detect(self, folder: Path) -> bool:
        return (folder / "instance_segmentation").is_dir()

    def stems(self, folder: Path) -> list[str]:
        return sorted(path.stem for path in files_in(folder / "global_parsing", "*.png"))

    def read(self, folder: Path, stem: str) -> Prediction:
        label_map = read_png(folder / "global_parsing" / f"{stem}.png")
        path = folder / "instance_segmentation" / f"{stem}.png"
        numbers, scores = read_png(path, wide=True), read_columns(path.with_suffix(".txt"), ("score",))[:, 0]
        if numbers.shape != label_map.shape or numbers.max(initial=0) > len(scores):
            raise ValueError(
                f"{path}: must have global_parsing's size {label_map.shape} and numbers up to the {len(scores)} lines "
                f"of {stem}.txt, got {numbers.shape} and {numbers.max(initial=0)}"
            )
        return Prediction(label_map, NumberedPersonMaps(label_map, numbers, len(scores)), scores)

    def write(self, folder: Path, stem: str, prediction: Prediction) -> None:
        labels, numbers = flatten(prediction.person_maps, prediction.scores)
        write_png(folder / "global_parsing" / f"{stem}.png", np.where(numbers > 0, labels, prediction.label_map))
        path = folder / "instance_segmentation" / f"{stem}.png"
        write_png(path, numbers)
        path.with_suffix(".txt").write_text("".join(f"{s:.9g}\n" for s in prediction.scores), encoding="utf-8")
