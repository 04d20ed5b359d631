"""The metrics of multiple human parsing, in percent: arrays in, numbers out, for anybody's predictions.

:class:`ParsingEvaluator` takes one image at a time and keeps counts only; the functions beside it are what it is made
of. Needs numpy, and pycocotools for AP^bbox; no torch.
"""

from rpcnn.labelmaps.boxes import person_boxes
from rpcnn.labelmaps.people import NumberedPersonMaps

from .boxes import ap_bbox
from .counting import confusion_matrix, person_counts
from .evaluator import ParsingEvaluator
from .instances import PERSON_THRESHOLDS, InstanceMatches, ap_h, ap_h_vol, ap_r, ap_r_vol, match_instances
from .parsing import PARSING_THRESHOLDS, PersonMatches, ap_p, ap_p_vol, average_precision, match_people, pcp
from .semantic import class_iou, mean_accuracy, miou, pixel_accuracy
from .table import format_table

__all__ = [
    "PARSING_THRESHOLDS",
    "PERSON_THRESHOLDS",
    "InstanceMatches",
    "NumberedPersonMaps",
    "ParsingEvaluator",
    "PersonMatches",
    "ap_bbox",
    "ap_h",
    "ap_h_vol",
    "ap_p",
    "ap_p_vol",
    "ap_r",
    "ap_r_vol",
    "average_precision",
    "class_iou",
    "confusion_matrix",
    "format_table",
    "match_instances",
    "match_people",
    "mean_accuracy",
    "miou",
    "pcp",
    "person_boxes",
    "person_counts",
    "pixel_accuracy",
]
