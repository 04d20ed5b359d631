"""The metrics of multiple human parsing, in percent, computed from arrays of any model's predictions.

:class:`ParsingEvaluator` takes one image at a time and keeps counts only. It computes a list of metrics, each a
:class:`Metric`: DEFAULT_METRICS, or a list that may hold your own. The functions compute single metrics. Needs numpy,
and pycocotools for AP^bbox, but not torch.
"""

from rpcnn.labelmaps.boxes import person_boxes
from rpcnn.labelmaps.people import NumberedPersonMaps

from .boxes import BoxMetrics, ap_bbox
from .counting import confusion_matrix, person_counts
from .defaults import DEFAULT_METRICS
from .evaluator import ParsingEvaluator
from .image_pair import ImagePair
from .instances import (
    PERSON_THRESHOLDS,
    InstanceMatches,
    InstanceMetrics,
    ap_h,
    ap_h_vol,
    ap_r,
    ap_r_vol,
    match_instances,
)
from .metric import Metric, Settings
from .parsing import (
    PARSING_THRESHOLDS,
    PersonMatches,
    PersonMetrics,
    ap_p,
    ap_p_vol,
    average_precision,
    match_people,
    pcp,
)
from .semantic import ClassIoU, SemanticMetrics, class_iou, mean_accuracy, miou, pixel_accuracy
from .table import format_table

__all__ = [
    "DEFAULT_METRICS",
    "PARSING_THRESHOLDS",
    "PERSON_THRESHOLDS",
    "BoxMetrics",
    "ClassIoU",
    "ImagePair",
    "InstanceMatches",
    "InstanceMetrics",
    "Metric",
    "NumberedPersonMaps",
    "ParsingEvaluator",
    "PersonMatches",
    "PersonMetrics",
    "SemanticMetrics",
    "Settings",
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
