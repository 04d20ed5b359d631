"""AP^bbox of pycocotools."""

from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from . import Timed, coco

THREADS = "1; it has no more"


def _from_dictionary(dataset: dict) -> COCO:
    made = COCO()
    made.dataset = dataset
    made.createIndex()
    return made


def ap_bbox(arrays: dict, threads: int) -> Timed:
    """From arrays in memory."""
    return coco.timed(_from_dictionary, lambda *both: COCOeval(*both, "bbox"), arrays, False, THREADS)


def ap_bbox_loaded(arrays: dict, threads: int) -> Timed:
    """With the truth and the predictions loaded beforehand."""
    return coco.timed(_from_dictionary, lambda *both: COCOeval(*both, "bbox"), arrays, True, THREADS)
