"""PASCAL-Person-Part, in the folders that systems of multiple human parsing exchange."""

from pathlib import Path
from typing import ClassVar

from rpcnn.labels import PASCAL_PERSON_PART

from .cihp import CIHP


class PascalPersonPart(CIHP):
    """PASCAL-Person-Part under `root`, the folder that holds Training and Testing; `split` is train or val (Testing).

    Its authors distribute MATLAB files of body parts and the pictures of PASCAL VOC 2010. For multiple human parsing
    they are exchanged (by the authors of QANet and M2FP, among others) in CIHP's folders, which are read here:
    Images/<id>.jpg, Category_ids/<id>.png (part of each pixel) and Human_ids/<id>.png (person of each pixel) of the
    ids in train_id.txt or test_id.txt, or of all files in Images where there is no such list. What :class:`CIHP` says
    of the truth holds here, too.

    Parts are numbered as in the PNGs of DeepLab's authors: 1 head, 2 torso, 3 and 4 upper and lower arms, 5 and 6
    upper and lower legs. Copies with other numbers (M2FP's has 1 lower arms, 2 head) train just as well, under wrong
    names: `python -m rpcnn.data show` tells, and :class:`rpcnn.data.folder.Folder` takes any names.

    Raises FileNotFoundError if the folders are not there, ValueError for an unknown split.
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
