"""The interface of a format of predictions on disk."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from .prediction import Prediction


class Format(Protocol):
    """Reads and writes a folder of predictions, one image at a time. A stem is an image's file name without suffix.

    FORMATS lists the formats of the package; :func:`rpcnn.evaluation.predictions.evaluate_predictions` takes any object
    with these members.
    """

    overlapping: bool
    """Whether people may overlap."""
    knows_people: bool
    """Whether the format stores the person of each pixel. If not, AP^p, PCP, AP^h and AP^bbox are undefined."""
    knows_instances: bool = True
    """Whether the format stores part instances, of people or alone. If not, AP^r is undefined, too."""

    def detect(self, folder: Path) -> bool:
        """Whether the folder's files look like this format."""

    def stems(self, folder: Path) -> list[str]:
        """List the stems of the images with a prediction, sorted. Raises ValueError with the path of a bad file."""

    def size(self, folder: Path, stem: str) -> tuple[int, int] | None:
        """The (height, width) that the prediction for one image says it has, if that is known before it is read.

        It is compared with the image, so that a file of bytes cannot ask for gigabytes. The default is None.
        """
        return None

    def read(self, folder: Path, stem: str) -> Prediction:
        """Read the prediction for one image. Raises ValueError with the path of a missing or invalid file."""

    def write(self, folder: Path, stem: str, prediction: Prediction) -> None:
        """Write the prediction for one image, or keep it until :meth:`finish` if the format has one file for all.

        Makes the folder. If `overlapping` is False, a pixel of several people belongs to the one with the best score.
        """

    def finish(self, folder: Path, others: Sequence["Format"] = ()) -> None:
        """Write the predictions that were kept, after the last image.

        Args:
            folder: the folder.
            others: the formats of other processes, which wrote further images to the same folder.
        """
        return  # nothing to do for formats with files per image
