"""AP^p and PCP: how well whole people are parsed, and how well they are ranked (Sec. 4.1), in percent.

A prediction is a label map of one person over the whole image, 0 where the person is not, and a score; the maps of an
image may overlap. Its overlap with a true person is the mean over the classes of their IoU over all pixels of the
image: the background is a class, classes in neither map are passed over. A prediction is compared with the one person
of its image that it overlaps most (of equal ones the first), whether or not another prediction took that person before.
In order of score it is right at threshold t if the overlap exceeds t and the person is not yet taken, and wrong
otherwise; predictions that score less than 0.001 are neither (released code).

AP^p at t is the area under the precision-recall curve with its envelope, all points; AP^p_vol its mean over 0.1 … 0.9.
PCP at t is the mean over all true people of the share of their parts that have an IoU above t in the prediction that
took them at t; people whom nobody took count 0.

:mod:`rpcnn.metrics.reference` computes the same step by step from the maps.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rpcnn.labelmaps.people import as_array

from .counting import person_counts
from .semantic import divide

PARSING_THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
LEAST_SCORE = 0.001


@dataclass(frozen=True)
class PersonMatches:
    """What AP^p and PCP need to know about one image: N predicted and G true people, T thresholds."""

    scores: np.ndarray
    """float64 [N]."""
    person: np.ndarray
    """int64 [N]: the true person that each prediction is compared with; −1 where there is none. [T, N] where that
    depends on the threshold (`free_only`)."""
    overlap: np.ndarray
    """float64 in 0..1, of the same shape: mean IoU with that person."""
    parts: np.ndarray
    """float64 [N, T] in 0..1: share of that person's parts with an IoU above each of PARSING_THRESHOLDS."""
    num_people: int
    """G."""

    @classmethod
    def pool(cls, images: Sequence["PersonMatches"]) -> "PersonMatches":
        """All images as one: people are numbered on from image to image, the best predictions come first. At least
        one image."""
        if len(images) == 1:
            return images[0]
        scores = np.concatenate([image.scores for image in images])
        order = np.argsort(-scores, kind="stable")  # sorting what is sorted, for every threshold, is quick
        first = np.cumsum([0] + [image.num_people for image in images])
        person = [image.person + start for image, start in zip(images, first, strict=False)]
        return cls(
            scores[order],
            np.concatenate(person, axis=-1)[..., order],
            np.concatenate([image.overlap for image in images], axis=-1)[..., order],
            np.concatenate([image.parts for image in images])[order],
            int(first[-1]),
        )


def match_people(
    person_maps, scores, true_person_maps, num_classes: int, *, count_background: bool = True, free_only: bool = False
) -> PersonMatches:
    """Compares the predicted people of one image with its true people.

    Args:
        person_maps: labels [N, H, W] in 0..K−1, or :class:`NumberedPersonMaps`.
        scores: [N] finite floats.
        true_person_maps: labels [G, H, W], or numbered; pixels of K or more (255) are ignored for that person.
        num_classes: K, background included.
        count_background: the background is a class of the mean IoU (released code); without it AP^p is harder.
        free_only: a prediction is compared with the people that no better prediction took (as COCO matches), instead
            of with the one it overlaps most whether taken or not (released code).

    Raises:
        ValueError: shapes or dtypes do not fit, a label is out of range, or a score is not finite.
    """
    counts = person_counts(person_maps, true_person_maps, num_classes)
    scores = as_scores("scores", scores, len(counts[0]))
    return match_counts(*counts, scores, count_background=count_background, free_only=free_only)


def match_counts(
    intersection: np.ndarray,
    predicted: np.ndarray,
    truth: np.ndarray,
    scores: np.ndarray,
    *,
    count_background: bool = True,
    free_only: bool = False,
) -> PersonMatches:
    """:func:`match_people` from what :func:`person_counts` gives: [N, G, K], [N, G, K], [G, K] and scores [N]."""
    people = len(truth)
    if not people:
        shape = (len(PARSING_THRESHOLDS), len(scores))
        nobody = np.full(shape if free_only else shape[1:], -1)
        return PersonMatches(scores, nobody, np.zeros(nobody.shape), np.zeros(shape[::-1]), 0)
    iou = divide(intersection, predicted + truth - intersection)  # [N, G, K]
    means = mean_overlap(iou if count_background else iou[..., 1:])  # [N, G]
    num_parts = np.maximum((truth[:, 1:] > 0).sum(1), 1)  # [G]
    above = (iou[..., 1:, None] > np.array(PARSING_THRESHOLDS)).sum(2)  # NaN is not above
    above = above / num_parts[:, None]  # [N, G, T]
    rows = np.arange(len(scores))
    if not free_only:
        person = means.argmax(1)  # the first of equals
        return PersonMatches(scores, person, means[rows, person], above[rows, person], people)
    person, overlap = _free_people(means, scores)  # [T, N]
    steps = np.arange(len(PARSING_THRESHOLDS))[:, None]
    return PersonMatches(scores, person, overlap, above[rows, person, steps].T, people)


def _free_people(means: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The free person that each prediction overlaps most at each of PARSING_THRESHOLDS, int64 [T, N], and how much."""
    person, overlap = np.full((2, len(PARSING_THRESHOLDS), len(scores)), -1.0)
    for t, threshold in enumerate(PARSING_THRESHOLDS):
        free = means.copy()
        for n in np.argsort(-scores, kind="stable"):
            best = free[n].argmax()
            if free[n, best] >= 0:  # taken people are at −1
                person[t, n], overlap[t, n] = best, free[n, best]
            if overlap[t, n] > threshold and scores[n] >= LEAST_SCORE:
                free[:, best] = -1
    return person.astype(np.int64), np.maximum(overlap, 0)


def mean_overlap(iou: np.ndarray) -> np.ndarray:
    """Means over the classes K of IoU [..., K], NaN where undefined; 0 where none is (every pixel ignored)."""
    defined = ~np.isnan(iou)
    return np.where(defined, iou, 0.0).sum(-1) / np.maximum(defined.sum(-1), 1)


def ap_p(matches: Sequence[PersonMatches], threshold: float = 0.5) -> float:
    """AP^p at one threshold over all images. Equal scores rank in the order of the images and their predictions.

    NaN where there is no true person; 0 where there is one and no prediction. Matches that were made with `free_only`
    know PARSING_THRESHOLDS alone.
    """
    if threshold not in PARSING_THRESHOLDS and any(image.person.ndim == 2 for image in matches):
        raise ValueError(f"ap_p: threshold must be one of {PARSING_THRESHOLDS} with free_only, got {threshold}")
    right, _ = _take_people(matches, threshold)
    return 100 * average_precision(right, sum(image.num_people for image in matches))


def ap_p_vol(matches: Sequence[PersonMatches]) -> float:
    """Mean of :func:`ap_p` at 0.1, 0.2, …, 0.9."""
    return float(np.mean([ap_p(matches, threshold) for threshold in PARSING_THRESHOLDS]))


def pcp(matches: Sequence[PersonMatches], threshold: float = 0.5) -> float:
    """Percentage of correctly parsed parts at one of PARSING_THRESHOLDS over all images.

    NaN where there is no true person.
    """
    if threshold not in PARSING_THRESHOLDS:
        raise ValueError(f"pcp: threshold must be one of {PARSING_THRESHOLDS}, got {threshold}")
    _, parts = _take_people(matches, threshold)
    num_people = sum(image.num_people for image in matches)
    return 100 * float(parts.sum() / num_people) if num_people else float("nan")


def average_precision(right: np.ndarray, num_people: int) -> float:
    """Area in 0..1 under precision over recall, where precision is the best at that recall or a higher one.

    Args:
        right: bool [D], predictions in the order of their scores, best first.
        num_people: how many could be found; NaN is returned for 0.
    """
    if num_people == 0:
        return float("nan")
    found = np.cumsum(right)
    recall = np.concatenate([[0.0], found / num_people, [1.0]])
    precision = np.concatenate([[0.0], found / np.arange(1, len(right) + 1), [0.0]])
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float((np.diff(recall) * envelope[1:]).sum())


def as_scores(name: str, scores, count: int) -> np.ndarray:
    """Scores as float64 [count]. Raises ValueError for another number of them, and where one is not finite."""
    scores = as_array(scores).astype(np.float64)
    if scores.shape != (count,):
        raise ValueError(
            f"rpcnn.metrics: {name} must have shape [{count}], one per prediction, got {list(scores.shape)}"
        )
    if not np.isfinite(scores).all():
        raise ValueError(f"rpcnn.metrics: {name} must be finite, got {scores[~np.isfinite(scores)][0]}")
    return scores


def _take_people(matches: Sequence[PersonMatches], threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """Predictions in order of score: bool [D], whether each is right; and [≤ D] parts' shares of the right ones."""
    if not matches:
        return np.zeros(0, bool), np.zeros(0)
    found = PersonMatches.pool(matches)
    at = lambda values: values[PARSING_THRESHOLDS.index(threshold)] if values.ndim == 2 else values  # [T, N] or [N]
    scores, person, overlap = found.scores, at(found.person), at(found.overlap)
    order = np.argsort(-scores, kind="stable")
    order = order[scores[order] >= LEAST_SCORE]
    able = order[overlap[order] > threshold]
    _, earliest = np.unique(person[able], return_index=True)
    taking = able[np.sort(earliest)]  # by rank, so that sums do not depend on how images were numbered
    right = np.zeros(len(scores), bool)
    right[taking] = True
    if threshold not in PARSING_THRESHOLDS:
        return right[order], np.zeros(0)
    return right[order], found.parts[taking, PARSING_THRESHOLDS.index(threshold)]
