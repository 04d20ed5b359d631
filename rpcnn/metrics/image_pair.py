"""The prediction and the ground truth of one image, with the pixel counts that all metrics share."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from rpcnn.labelmaps.people import NumberedPersonMaps, PersonMapsLike, as_array, as_person_maps

from .arrays import as_boxes, as_scores
from .counting import image_counts, person_counts

PersonCounts = tuple[np.ndarray, np.ndarray, np.ndarray]


@dataclass(frozen=True)
class ImagePair:
    """The prediction and the ground truth of one image.

    H × W pixels, N predicted and G true people, K classes with the background.

    Labels may have any integer dtype; pixels whose true label is K or more (255) are ignored.
    """

    label_map: np.ndarray
    """[H, W]: predicted labels of the whole image, below K."""
    person_maps: np.ndarray | NumberedPersonMaps
    """[N, H, W]: a label map per predicted person, 0 outside the person. They may overlap."""
    scores: np.ndarray
    """float64 [N]: parsing scores, finite."""
    boxes: np.ndarray
    """float64 [N, 4]: x1 y1 x2 y2 in pixels, width = x2 − x1, finite."""
    box_scores: np.ndarray
    """float64 [N]: finite."""
    true_label_map: np.ndarray
    """[H, W]."""
    true_person_maps: np.ndarray | NumberedPersonMaps
    """[G, H, W]."""
    true_boxes: np.ndarray
    """float64 [B, 4]."""
    confusion: np.ndarray
    """int64 [K, K]: of the label maps, see :func:`confusion_matrix`."""
    person_counts: PersonCounts
    """int64 intersection [N, G, K], predicted [N, G, K] and truth [G, K], see :func:`person_counts`."""
    part_maps: np.ndarray | NumberedPersonMaps | None = None
    """[M, H, W]: predicted part instances of one label each, from predictions without a person for each part."""
    part_scores: np.ndarray | None = None
    """float64 [M]."""
    part_counts: PersonCounts | None = None
    """:func:`person_counts` of the part maps and the true people."""

    @classmethod
    def of(
        cls,
        num_classes: int,
        *,
        label_map: ArrayLike,
        person_maps: PersonMapsLike,
        scores: ArrayLike,
        boxes: ArrayLike,
        box_scores: ArrayLike,
        true_label_map: ArrayLike,
        true_person_maps: PersonMapsLike,
        true_boxes: ArrayLike,
        part_maps: PersonMapsLike | None = None,
        part_scores: Any = None,
    ) -> "ImagePair":
        """Check the arrays of one image and count its pixels.

        Args:
            num_classes: K, 1..256.
            label_map, …: see the fields of the same names. Arrays, lists or tensors on any device; person_maps,
                true_person_maps and part_maps may be :class:`NumberedPersonMaps`.

        Raises:
            ValueError: an argument has the wrong shape or dtype, a predicted label is K or more, or a score or box is
                not finite.
        """
        label_map, true_label_map = as_array(label_map), as_array(true_label_map)
        person_maps, true_person_maps = as_person_maps(person_maps), as_person_maps(true_person_maps)
        shape = true_label_map.shape
        if len(shape) != 2 or label_map.shape != shape:
            raise ValueError(
                "ParsingEvaluator: label_map and true_label_map must have one shape [H, W], "
                f"got {list(label_map.shape)} and {list(shape)}"
            )
        if true_person_maps.shape[1:] != shape:
            raise ValueError(
                f"ParsingEvaluator: true_person_maps must have shape [G, {shape[0]}, {shape[1]}], "
                f"got {list(true_person_maps.shape)}"
            )
        confusion, intersection, predicted, truth = image_counts(
            label_map,
            person_maps,
            true_label_map=true_label_map,
            true_person_maps=true_person_maps,
            num_classes=num_classes,
        )
        scores = as_scores("scores", scores, len(person_maps))
        part_counts = None
        if part_maps is not None:
            part_maps, part_counts = as_person_maps(part_maps), person_counts(part_maps, true_person_maps, num_classes)
            part_scores = as_scores("part_scores", part_scores, len(part_maps))
        boxes = as_boxes("boxes", boxes)
        if len(boxes) != len(scores):
            raise ValueError(
                f"ParsingEvaluator: boxes must have shape [{len(scores)}, 4], one per person, got {list(boxes.shape)}"
            )
        return cls(
            label_map=label_map,
            person_maps=person_maps,
            scores=scores,
            boxes=boxes,
            box_scores=as_scores("box_scores", box_scores, len(boxes)),
            true_label_map=true_label_map,
            true_person_maps=true_person_maps,
            true_boxes=as_boxes("true_boxes", true_boxes),
            confusion=confusion,
            person_counts=(intersection, predicted, truth),
            part_maps=part_maps,
            part_scores=part_scores,
            part_counts=part_counts,
        )


def measure_arguments(result: Any, truth: Any) -> dict[str, Any]:
    """Collect the arguments of :meth:`ParsingEvaluator.measure` for one image.

    Args:
        result: a :class:`rpcnn.ParsingResult`, a :class:`rpcnn.formats.Prediction`, or any object with the attributes
            label_map, person_maps, scores, boxes and box_scores; part_maps and part_scores are optional.
        truth: a :class:`rpcnn.data.sample.Truth`, or any object with the attributes label_map, person_maps and boxes.
    """
    return dict(
        label_map=result.label_map,
        person_maps=result.person_maps,
        scores=result.scores,
        boxes=result.boxes,
        box_scores=result.box_scores,
        part_maps=getattr(result, "part_maps", None),
        part_scores=getattr(result, "part_scores", None),
        true_label_map=truth.label_map,
        true_person_maps=truth.person_maps,
        true_boxes=truth.boxes,
    )
