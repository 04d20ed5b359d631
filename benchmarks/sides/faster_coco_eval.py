"""AP^bbox of faster-coco-eval, without what it computes beyond pycocotools."""

from faster_coco_eval import COCO, COCOeval_faster

from . import Timed, coco

THREADS = "its choice, from the processors"


def ap_bbox(arrays: dict, threads: int) -> Timed:
    """From arrays in memory."""
    return coco.timed(COCO, lambda *both: COCOeval_faster(*both, "bbox"), arrays, False, THREADS)


def ap_bbox_loaded(arrays: dict, threads: int) -> Timed:
    """With the truth and the predictions loaded beforehand."""
    return coco.timed(COCO, lambda *both: COCOeval_faster(*both, "bbox"), arrays, True, THREADS)
