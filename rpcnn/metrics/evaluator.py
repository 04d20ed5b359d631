"""All metrics of the paper, image by image, in bounded memory."""

from dataclasses import dataclass, replace

import numpy as np

from rpcnn.labelmaps.people import as_array, as_person_maps

from .boxes import BoxMatches, as_boxes, match_coco_boxes, pool_ap_bbox
from .counting import image_counts, person_counts
from .instances import InstanceMatches, ap_h, ap_h_vol, ap_r, ap_r_vol, classes_shown, match_instances
from .parsing import PARSING_THRESHOLDS, PersonMatches, ap_p, ap_p_vol, as_scores, match_counts, pcp
from .semantic import class_iou, mean_accuracy, miou, pixel_accuracy


@dataclass(frozen=True)
class ImageCounts:
    """What :meth:`ParsingEvaluator.measure` found in one image."""

    confusion: np.ndarray | None
    matches: PersonMatches
    instances: InstanceMatches
    boxes: BoxMatches


def measure_arguments(result, truth) -> dict:
    """The arguments of :meth:`ParsingEvaluator.measure` for one image.

    Args:
        result: a :class:`rpcnn.ParsingResult`, :class:`rpcnn.formats.Prediction`, or anything with attributes
            label_map, person_maps, scores, boxes, box_scores and, where it has them, part_maps and part_scores.
        truth: a :class:`rpcnn.data.sample.Truth`, or anything with attributes label_map, person_maps and boxes.
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


class ParsingEvaluator:
    """Counts image by image, gives the metrics at the end. No map is kept: some 400 bytes per predicted person stay.

    >>> evaluator = ParsingEvaluator(num_classes=20)
    >>> for ... in ...: evaluator.add(label_map=..., person_maps=..., ...)    # doctest: +SKIP
    >>> evaluator.summarize()["miou"]                                 # doctest: +SKIP

    With several processes, each adds its own images; one merges the others' `state()`.

    Args:
        num_classes: K, background included.
        skip_empty: images without a predicted person do not count in mIoU and the accuracies (released code), although
            the prediction may hold labels and the truth people.
        count_background, free_only: of AP^p and PCP, see :func:`match_people`.
        absent: of mIoU, see :func:`miou`.
    """

    def __init__(
        self,
        num_classes: int,
        skip_empty: bool = False,
        count_background: bool = True,
        free_only: bool = False,
        absent: str = "skip",
    ):
        miou(np.zeros((1, 1), np.int64), absent)  # refuses an unknown word now
        self.num_classes, self.skip_empty = num_classes, skip_empty
        self.count_background, self.free_only, self.absent = count_background, free_only, absent
        self._confusion = np.zeros((num_classes, num_classes), np.int64)
        self._images: dict[tuple, ImageCounts] = {}  # (0, number) without a name, (1, name) with one

    def add(self, *, image_id: int | str | None = None, **arrays) -> None:
        """One image: its prediction and its truth, the arguments of :meth:`measure`.

        Args:
            image_id: with names of one type for all images, equal scores rank in the order of the names, so that the
                order of adding and merging does not matter.

        Raises:
            ValueError: as :meth:`measure`, or the image was added before. Nothing is counted then.
        """
        self._check_new([self._key(image_id)])
        self.put(self.measure(**arrays), image_id)

    def add_result(self, result, truth, image_id: int | str | None = None) -> None:
        """One image by its result and its truth, see :func:`measure_arguments`; otherwise as :meth:`add`."""
        self.add(image_id=image_id, **measure_arguments(result, truth))

    def measure(
        self,
        *,
        label_map,
        person_maps,
        scores,
        boxes,
        box_scores,
        true_label_map,
        true_person_maps,
        true_boxes,
        part_maps=None,
        part_scores=None,
    ) -> "ImageCounts":
        """What one image contributes, not yet counted: several threads may measure and one :meth:`put`.

        Args:
            label_map, true_label_map: [H, W] labels of the whole image; true pixels of K or more (255) do not count.
            person_maps, true_person_maps: [N, H, W] and [G, H, W], a label map per person, which may overlap; or
                :class:`NumberedPersonMaps`.
            scores, box_scores: [N] parsing scores, that AP^p ranks by, and box scores, that AP^bbox ranks by.
            boxes, true_boxes: [N, 4] and [B, 4], x1 y1 x2 y2 in pixels.
            part_maps, part_scores: [M, H, W] (or numbered) and [M], part instances of one label each, for AP^r in place
                of the people's own parts.

        Raises:
            ValueError: a shape or dtype does not fit, a predicted label is K or more, a score or box is not finite.
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
        confusion, *counts = image_counts(label_map, person_maps, true_label_map, true_person_maps, self.num_classes)
        scores = as_scores("scores", scores, len(counts[0]))
        matches = match_counts(*counts, scores, count_background=self.count_background, free_only=self.free_only)
        shown_maps = person_maps
        if part_maps is not None:
            shown_maps, counts = as_person_maps(part_maps), person_counts(part_maps, true_person_maps, self.num_classes)
            scores = as_scores("part_scores", part_scores, len(counts[0]))
        instances = match_instances(*counts, classes_shown(shown_maps, counts[1]), scores)
        boxes = as_boxes("boxes", boxes)
        if len(boxes) != len(matches.scores):
            raise ValueError(
                f"ParsingEvaluator: boxes must have shape [{len(matches.scores)}, 4], one per person, "
                f"got {list(boxes.shape)}"
            )
        box_scores = as_scores("box_scores", box_scores, len(boxes))
        if not len(boxes) and self.skip_empty:
            confusion[:] = 0
        return ImageCounts(confusion, matches, instances, match_coco_boxes(boxes, box_scores, true_boxes))

    def put(self, counts: "ImageCounts", image_id: int | str | None = None) -> None:
        """Counts a measured image. Raises ValueError where it was added before."""
        key = self._key(image_id)
        self._check_new([key])
        self._confusion += counts.confusion
        self._images[key] = replace(counts, confusion=None)

    def _key(self, image_id: int | str | None) -> tuple:
        return (0, len(self._images)) if image_id is None else (1, image_id)

    def state(self) -> dict:
        """What another process's evaluator needs to `merge` this one; can be pickled."""
        return {"confusion": self._confusion.copy(), "images": dict(self._images)}

    def merge(self, state: dict) -> None:
        """Takes in the images of another evaluator's `state()`, which must have had the same number of classes.

        Images that were added without a name are numbered on. Raises ValueError where an image was in both.
        """
        if state["confusion"].shape != self._confusion.shape:
            raise ValueError(
                f"ParsingEvaluator: merge wants a state of {self.num_classes} classes, got {len(state['confusion'])}"
            )
        keys = [
            (named, name if named else len(self._images) + number)
            for number, (named, name) in enumerate(state["images"])
        ]
        self._check_new(keys)
        self._confusion += state["confusion"]
        self._images.update(zip(keys, state["images"].values(), strict=True))

    def summarize(self) -> dict:
        """All metrics in percent; None where one is undefined: without a pixel or a person in the truth.

        Returns:
            miou, pixel_accuracy, mean_accuracy, ap_p_50, ap_p_vol, pcp_50, ap_r_50, ap_r_vol, ap_h_50, ap_h_vol,
            ap_bbox; ap_p_10 … ap_p_90 and pcp_10 … pcp_90; iou, a list with an entry per class; images and people, how
            many the truth has.
        """
        images = [self._images[key] for key in sorted(self._images)]
        matches = [PersonMatches.pool([image.matches for image in images])] if images else []
        instances = [InstanceMatches.pool([image.instances for image in images])] if images else []
        results: dict = {
            "miou": miou(self._confusion, self.absent),
            "pixel_accuracy": pixel_accuracy(self._confusion),
            "mean_accuracy": mean_accuracy(self._confusion),
            "ap_p_50": ap_p(matches, 0.5),
            "ap_p_vol": ap_p_vol(matches),
            "pcp_50": pcp(matches, 0.5),
            "ap_r_50": ap_r(instances, 0.5),
            "ap_r_vol": ap_r_vol(instances),
            "ap_h_50": ap_h(instances, 0.5),
            "ap_h_vol": ap_h_vol(instances),
            "ap_bbox": pool_ap_bbox([image.boxes for image in images]),
        }
        for threshold in PARSING_THRESHOLDS:
            percent = round(100 * threshold)
            results[f"ap_p_{percent}"], results[f"pcp_{percent}"] = ap_p(matches, threshold), pcp(matches, threshold)
        results = {key: None if np.isnan(value) else value for key, value in results.items()}
        results["iou"] = [None if np.isnan(value) else float(value) for value in class_iou(self._confusion)]
        return results | {"images": len(images), "people": sum(image.num_people for image in matches)}

    def _check_new(self, keys: list[tuple]) -> None:
        for key in keys:
            if key in self._images:
                raise ValueError(f"ParsingEvaluator: image {key[1]!r} was added before")
