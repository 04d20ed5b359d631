"""The network: one file per box of the paper's Fig. 2, and `combine`, its Fig. 4."""

from .augmented import AugmentedInference
from .combine import combine
from .detections import Detections
from .rp_rcnn import RPRCNN, parameter_groups

__all__ = ["RPRCNN", "AugmentedInference", "Detections", "combine", "parameter_groups"]
