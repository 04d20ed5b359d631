"""The metrics of multiple human parsing, in percent: arrays in, numbers out, for anybody's predictions.

``ParsingEvaluator`` takes one image at a time and keeps counts only; the functions beside it are the definitions.
"""

from .boxes import ap_bbox
from .evaluator import ParsingEvaluator, format_table
from .parsing import THRESHOLDS, average_precision, parsing_ap, person_ious
from .semantic import confusion_matrix, semantic_scores

__all__ = [
    "THRESHOLDS",
    "ParsingEvaluator",
    "ap_bbox",
    "average_precision",
    "confusion_matrix",
    "format_table",
    "parsing_ap",
    "person_ious",
    "semantic_scores",
]
