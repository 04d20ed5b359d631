"""What a format of predictions on disk is."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from .prediction import Prediction


class Format(Protocol):
    """Reads and writes a folder of predictions, one image at a time; <stem> is an image's file name without suffix.

    FORMATS holds the package's; :func:`rpcnn.evaluation.predictions.evaluate_predictions` takes any object with these
    members.
    """

    overlapping: bool
    """Whether several people may have the same pixel."""
    knows_people: bool
    """Whether it says which person a pixel belongs to. Without, AP^p, PCP, AP^h and AP^bbox are undefined."""

    def detect(self, folder: Path) -> bool:
        """Whether the folder's files look like this format."""

    def stems(self, folder: Path) -> list[str]:
        """The images that the folder has predictions for, sorted. Raises ValueError that names the file at fault."""

    def read(self, folder: Path, stem: str) -> Prediction:
        """The prediction for one image. Raises ValueError that names the file at fault."""

    def write(self, folder: Path, stem: str, prediction: Prediction) -> None:
        """Writes the prediction for one image, and makes the folder; what cannot be written yet waits for `finish`.

        Where `overlapping` is False, a pixel of several people goes to the one with the best score.
        """

    def finish(self, folder: Path, others: Sequence["Format"] = ()) -> None:
        """Writes what waits, after the last image.

        Args:
            others: of other processes, which wrote further images into the same folder.
        """
        return  # nothing, in formats that have files per image
