"""The fields: each takes a source of random choices, runs one case, and raises if something is wrong."""

from collections.abc import Callable
from random import Random

from . import detector, files, numbers, operators

FIELDS: dict[str, Callable[[Random], None]] = {
    "ops": operators.valid,
    "detector_ops": detector.valid,
    "not_finite": operators.not_finite,
    "spoilt_ops": operators.spoilt,
    "raw_ops": operators.raw,
    "evaluator": numbers.evaluator,
    "private_modules": numbers.private_modules,
    "pictures": files.pictures,
    "label_maps": files.label_maps,
    "predictions": files.predictions,
    "weights": files.weights,
    "configurations": files.configurations,
}
