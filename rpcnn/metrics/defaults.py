"""The default metrics of an evaluator."""

from .boxes import BoxMetrics
from .instances import InstanceMetrics
from .metric import Metric
from .parsing import PersonMetrics
from .semantic import ClassIoU, SemanticMetrics

DEFAULT_METRICS: tuple[Metric, ...] = (SemanticMetrics(), PersonMetrics(), InstanceMetrics(), BoxMetrics(), ClassIoU())
"""In the order of the results' keys and the table's columns."""
