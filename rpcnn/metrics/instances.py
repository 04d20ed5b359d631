"""AP^r and AP^h: how well part instances and whole people are segmented and ranked, in percent.

:mod:`rpcnn.metrics.reference` computes the same step by step from the maps.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rpcnn.labelmaps.people import NumberedPersonMaps

from .counting import take_greedily
from .image_pair import ImagePair
from .metric import Metric, Settings
from .parsing import PARSING_THRESHOLDS, average_precision
from .semantic import divide, mean_defined

PERSON_THRESHOLDS = tuple(round(0.5 + 0.05 * i, 2) for i in range(10))


class InstanceMetrics(Metric):
    """Of part instances and whole people: AP^r and AP^h.

    An instance is one class c ≥ 1 of one person; its score is the person's (formats with a score per part use that). In
    order of score a predicted instance takes, of the true instances of its class and image that are free, the one that
    it overlaps most if their IoU exceeds t; otherwise it is wrong.

    - AP_t(c) = area under the precision-recall curve of class c, envelope, all points; **AP^r_t** = mean of AP_t(c)
      over the classes that occur in the truth; **AP^r_vol** = mean of AP^r_t over t = 0.1, 0.2, …, 0.9.
    - **AP^h_t**: the same for whole people, the pixels of any part; **AP^h_vol** = mean over t = 0.50, 0.55, …, 0.95.

    Source: Hariharan et al., "Simultaneous detection and segmentation" (2014), where AP^r is defined with one-to-one
    matching; CIHP's challenge reports it. One public script for human parsing compares every prediction with all true
    instances, taken or not, so that duplicates are right and its AP^r is higher; numbers from it cannot be compared
    with these.
    """

    columns = (("AP^r_50", "ap_r_50"), ("AP^r_vol", "ap_r_vol"), ("AP^h_vol", "ap_h_vol"))
    needs_people = ("ap_h_50", "ap_h_vol")
    needs_instances = ("ap_r_50", "ap_r_vol")

    def measure(self, image: ImagePair, settings: Settings) -> "InstanceMatches":
        """Match one image's predicted instances: its part maps if it has them, else the parts of its people."""
        maps, counts, scores = image.person_maps, image.person_counts, image.scores
        if image.part_maps is not None and image.part_counts is not None and image.part_scores is not None:
            maps, counts, scores = image.part_maps, image.part_counts, image.part_scores
        intersection, predicted, truth = counts
        return match_instances(
            intersection, predicted, truth=truth, shown=classes_shown(maps, predicted), scores=scores
        )

    def pool(self, counts: "list[InstanceMatches]") -> "list[InstanceMatches]":
        """Concatenate the matches of all images; an empty list if there are no images."""
        return [InstanceMatches.pool(counts)] if counts else []

    def summarize(self, counts: "list[InstanceMatches]", settings: Settings) -> dict:
        """Compute ap_r_50, ap_r_vol, ap_h_50 and ap_h_vol."""
        return {
            "ap_r_50": ap_r(counts),
            "ap_r_vol": ap_r_vol(counts),
            "ap_h_50": ap_h(counts),
            "ap_h_vol": ap_h_vol(counts),
        }


@dataclass(frozen=True)
class InstanceMatches:
    """The instance matches of one image, for AP^r and AP^h: N predictions, K classes, T thresholds."""

    scores: np.ndarray
    """float64 [N]."""
    found: np.ndarray
    """bool [N, K]: the classes that occur in each prediction; column 0 is the whole person, any part."""
    right_parts: np.ndarray
    """bool [T, N, K]: whether they are matched with a true instance at each of PARSING_THRESHOLDS; column 0 is
    unused."""
    right_people: np.ndarray
    """bool [10, N]: whether each prediction is matched with a true person at each of PERSON_THRESHOLDS."""
    truth: np.ndarray
    """int64 [K]: number of true instances of each class; column 0 is whole people."""

    @classmethod
    def pool(cls, images: Sequence["InstanceMatches"]) -> "InstanceMatches":
        """Concatenate the matches of at least one image, and sort several by descending score."""
        if len(images) == 1:
            return images[0]
        scores = np.concatenate([image.scores for image in images])
        order = np.argsort(-scores, kind="stable")  # once: sorting a sorted array again for each threshold is fast
        return cls(
            scores[order],
            np.concatenate([image.found for image in images])[order],
            np.concatenate([image.right_parts for image in images], axis=1)[:, order],
            np.concatenate([image.right_people for image in images], axis=1)[:, order],
            np.sum([image.truth for image in images], axis=0),
        )


def classes_shown(person_maps: np.ndarray | NumberedPersonMaps, predicted: np.ndarray) -> np.ndarray:
    """Return the classes that occur in each predicted person's map.

    If there are true people, pixels that all of them ignore are not considered.

    Args:
        person_maps: [N, H, W].
        predicted: [N, G, K] from :func:`person_counts`.

    Returns:
        bool [N, K].
    """
    if predicted.shape[1]:
        return predicted.max(1) > 0
    classes = range(predicted.shape[2])
    shown = [np.isin(classes, np.unique(person)) for person in np.asarray(person_maps)]
    return np.array(shown, bool).reshape(len(person_maps), len(classes))


def match_instances(
    intersection: np.ndarray, predicted: np.ndarray, truth: np.ndarray, shown: np.ndarray, scores: np.ndarray
) -> InstanceMatches:
    """Match one image's predicted instances with its true instances, see :class:`InstanceMetrics`.

    Args:
        intersection, predicted, truth: [N, G, K], [N, G, K] and [G, K] from :func:`person_counts`.
        shown: bool [N, K], the classes that occur in each prediction.
        scores: float64 [N].
    """
    # Column 0 is not used for the background but for whole people. Their union is all counted pixels except those that
    # are background in both maps.
    both_background = intersection[..., 0]
    counted = predicted.sum(-1)
    true_person, predicted_person = truth[:, 1:].sum(-1), predicted[..., 1:].sum(-1)
    union = counted - both_background
    whole = divide(true_person + predicted_person - union, union)  # [N, G]
    parts = divide(intersection, predicted + truth - intersection)  # [N, G, K]
    order = np.argsort(-scores, kind="stable")
    found = shown.copy()
    found[:, 0] = shown[:, 1:].any(1)
    occurs = truth > 0
    occurs[:, 0] = true_person > 0
    return InstanceMatches(
        scores,
        found,
        right_parts=take_greedily(parts, occurs, order=order, thresholds=PARSING_THRESHOLDS),
        right_people=take_greedily(whole[..., None], occurs[:, :1], order=order, thresholds=PERSON_THRESHOLDS)[..., 0],
        truth=occurs.sum(0),
    )


def ap_r(matches: Sequence[InstanceMatches], threshold: float = 0.5) -> float:
    """Compute AP^r at one threshold over all images, in percent; NaN if no part occurs in the ground truth.

    Equal scores rank in the order of the images and their predictions.

    Raises:
        ValueError: the threshold is not in PARSING_THRESHOLDS.
    """
    if threshold not in PARSING_THRESHOLDS:
        raise ValueError(f"ap_r: threshold must be one of {PARSING_THRESHOLDS}, got {threshold}")
    if not matches:
        return float("nan")
    found = InstanceMatches.pool(matches)
    return 100 * mean_defined(_class_precisions(found, found.right_parts[PARSING_THRESHOLDS.index(threshold)])[1:])


def ap_r_vol(matches: Sequence[InstanceMatches]) -> float:
    """Compute the mean of :func:`ap_r` at 0.1, 0.2, …, 0.9."""
    return float(np.mean([ap_r(matches, threshold) for threshold in PARSING_THRESHOLDS]))


def ap_h(matches: Sequence[InstanceMatches], threshold: float = 0.5) -> float:
    """Compute AP^h at one threshold over all images, in percent; NaN if no true person has a part.

    Raises:
        ValueError: the threshold is not in PERSON_THRESHOLDS.
    """
    if threshold not in PERSON_THRESHOLDS:
        raise ValueError(f"ap_h: threshold must be one of {PERSON_THRESHOLDS}, got {threshold}")
    if not matches:
        return float("nan")
    found = InstanceMatches.pool(matches)
    return 100 * float(_class_precisions(found, found.right_people[PERSON_THRESHOLDS.index(threshold)][:, None])[0])


def ap_h_vol(matches: Sequence[InstanceMatches]) -> float:
    """Compute the mean of :func:`ap_h` at 0.50, 0.55, …, 0.95."""
    return float(np.mean([ap_h(matches, threshold) for threshold in PERSON_THRESHOLDS]))


def _class_precisions(matches: InstanceMatches, right: np.ndarray) -> np.ndarray:
    """Compute the average precision of each class in 0..1, float64 [K], from `right`, bool [N, K]."""
    order = np.argsort(-matches.scores, kind="stable")
    right, found = right[order], matches.found[order]
    return np.array([average_precision(right[found[:, k], k], matches.truth[k]) for k in range(right.shape[1])])
