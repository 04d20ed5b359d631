"""The network: one file per box of the paper's Fig. 2."""

from .detections import Detections
from .rp_rcnn import RPRCNN

__all__ = ["RPRCNN", "Detections"]
