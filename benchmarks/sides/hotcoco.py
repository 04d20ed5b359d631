"""AP^bbox of hotcoco."""

from hotcoco import COCO, COCOeval

from . import Timed, coco

THREADS = "RAYON_NUM_THREADS"


def ap_bbox(arrays: dict, threads: int) -> Timed:
    """From arrays in memory."""
    return coco.timed(COCO, lambda *both: COCOeval(*both, "bbox"), arrays, False, THREADS)


def ap_bbox_loaded(arrays: dict, threads: int) -> Timed:
    """With the truth and the predictions loaded beforehand."""
    return coco.timed(COCO, lambda *both: COCOeval(*both, "bbox"), arrays, True, THREADS)
