"""The network: one file per part of the paper's Fig. 2, and `build_model`, which makes it from a configuration."""

from .build import build_model
from .detections import Detections
from .rp_rcnn import RPRCNN

__all__ = ["RPRCNN", "Detections", "build_model"]
