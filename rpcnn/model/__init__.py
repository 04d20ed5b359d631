"""The network: one file per box of the paper's Fig. 2, `build_model` to make it from a configuration."""

from .build import build_model
from .detections import Detections
from .rp_rcnn import RPRCNN

__all__ = ["RPRCNN", "Detections", "build_model"]
