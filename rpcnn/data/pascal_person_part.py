"""PASCAL-Person-Part, in the folder layout that is common for multiple human parsing."""

from pathlib import Path
from typing import ClassVar

from rpcnn.labels import PASCAL_PERSON_PART

from .cihp import CIHP


class PascalPersonPart(CIHP):
    """PASCAL-Person-Part.

    Its authors distribute MATLAB files of body parts and the images of PASCAL VOC 2010. For multiple human parsing, the
    data set is distributed (by the authors of QANet and M2FP, among others) in CIHP's layout, which is read here:
    Images/<id>.jpg, Category_ids/<id>.png (the part of each pixel) and Human_ids/<id>.png (the person of each pixel)
    for the ids in train_id.txt or test_id.txt, or for all files in Images if there is no such list. The ground truth is
    made as in :class:`CIHP`.

    Parts are numbered as in the PNGs of DeepLab's authors: 1 head, 2 torso, 3 and 4 upper and lower arms, 5 and 6
    upper and lower legs. Copies with other numbers (M2FP's has 1 lower arms, 2 head) work for training, but with wrong
    names. `python -m rpcnn.data show` shows the names, and :class:`rpcnn.data.folder.Folder` supports any names.

    Args:
        root: the folder with Training and Testing.
        split: train, or val for Testing.

    Raises:
        FileNotFoundError: the folders are missing.
        ValueError: unknown split.
    """

    labels = PASCAL_PERSON_PART
    splits: ClassVar[dict[str, tuple[str, str]]] = {
        "train": ("Training", "train_id.txt"),
        "val": ("Testing", "test_id.txt"),
    }
    layout = "Training/Images and Testing/Category_ids, but no Validation"

    @classmethod
    def detect(cls, root: Path) -> bool:
        there = (root / "Training/Images").is_dir() and (root / "Testing/Category_ids").is_dir()
        return there and not (root / "Validation").exists()
