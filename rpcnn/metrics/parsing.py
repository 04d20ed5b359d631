"""AP^p and PCP: how well whole people are parsed, and how well they are ranked (Sec. 4.1), in percent.

:mod:`rpcnn.metrics.reference` computes the same step by step from the maps.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from rpcnn.labelmaps.people import PersonMapsLike
from rpcnn.labels import LabelSet

from .arrays import as_scores
from .counting import person_counts
from .image_pair import ImagePair
from .metric import Metric, Settings, format_percent
from .semantic import divide

PARSING_THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
PERCENTS = tuple(round(100 * threshold) for threshold in PARSING_THRESHOLDS)
LEAST_SCORE = 0.001


class PersonMetrics(Metric):
    """Of people: AP^p and PCP.

    The overlap of a predicted person's map with a true person's is the mean over the classes of their IoU over all
    pixels of the image: the background is a class (`count_background=False` leaves it out, which is harder), classes in
    neither map are passed over. In order of score over all images, a prediction is compared with the person of its
    image that it overlaps most (of equal ones the first), taken or not; at threshold t it is right if the overlap
    exceeds t and the person is not taken, and takes the person. (`free_only=True` compares with people not yet taken
    only, as COCO does.) Scores below 0.001 are left out.

    - **AP^p_t**: area under the precision-recall curve with its envelope, all points. **AP^p_vol**: mean over
      t = 0.1 … 0.9.
    - **PCP_t**: mean over all true people of the share of their parts whose IoU in the prediction that took them
      exceeds t; 0 for people whom nobody took.

    Source: the released code's evaluation, and Zhao et al., "Understanding humans in crowded scenes" (2018), for
    MHP-v2. MHP-v2's own script leaves out true people without a part and reads maps that do not overlap: see
    [formats](formats.md). Equal scores rank in the order of images and predictions, where the released code leaves it
    to an unstable sort.
    """

    columns = (("AP^p_50", "ap_p_50"), ("AP^p_vol", "ap_p_vol"), ("PCP_50", "pcp_50"))
    needs_people = ("ap_p_vol", *(f"{name}_{percent}" for percent in PERCENTS for name in ("ap_p", "pcp")))

    def measure(self, image: ImagePair, settings: Settings) -> "PersonMatches":
        """Match one image's predicted people with its true people."""
        return match_counts(
            *image.person_counts,
            image.scores,
            count_background=settings.count_background,
            free_only=settings.free_only,
        )

    def pool(self, counts: "list[PersonMatches]") -> "list[PersonMatches]":
        """Concatenate the matches of all images; an empty list if there are no images."""
        return [PersonMatches.pool(counts)] if counts else []

    def summarize(self, counts: "list[PersonMatches]", settings: Settings) -> dict:
        """Compute ap_p_50, ap_p_vol and pcp_50."""
        return {"ap_p_50": ap_p(counts), "ap_p_vol": ap_p_vol(counts), "pcp_50": pcp(counts)}

    def details(self, counts: "list[PersonMatches]", settings: Settings) -> dict:
        """Compute ap_p_10, pcp_10, …, ap_p_90, pcp_90."""
        results = {}
        for percent, threshold in zip(PERCENTS, PARSING_THRESHOLDS, strict=True):
            results[f"ap_p_{percent}"], results[f"pcp_{percent}"] = ap_p(counts, threshold), pcp(counts, threshold)
        return results

    def lines(self, results: dict, labels: LabelSet) -> list[str]:
        """Format AP^p and PCP at every threshold."""
        row = lambda key: "".join(f"{format_percent(results[f'{key}_{percent}'], 1):>8}" for percent in PERCENTS)
        return [
            "threshold " + "".join(f"{threshold:>8.1f}" for threshold in PARSING_THRESHOLDS),
            "AP^p      " + row("ap_p"),
            "PCP       " + row("pcp"),
        ]


@dataclass(frozen=True)
class PersonMatches:
    """The person matches of one image, for AP^p and PCP: N predicted and G true people, T thresholds."""

    scores: np.ndarray
    """float64 [N]."""
    person: np.ndarray
    """int64 [N]: the true person that each prediction is compared with, −1 if none. With `free_only`, [T, N], since it
    depends on the threshold."""
    overlap: np.ndarray
    """float64 in 0..1, of the shape of `person`: mean IoU with that person."""
    parts: np.ndarray
    """float64 [N, T] in 0..1: share of that person's parts with an IoU above each of PARSING_THRESHOLDS."""
    num_people: int
    """G, the number of true people."""

    @classmethod
    def pool(cls, images: Sequence["PersonMatches"]) -> "PersonMatches":
        """Concatenate the matches of at least one image, and sort several by descending score.

        True people are numbered consecutively over all images.
        """
        if len(images) == 1:
            return images[0]
        scores = np.concatenate([image.scores for image in images])
        order = np.argsort(-scores, kind="stable")  # once: sorting a sorted array again for each threshold is fast
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
    person_maps: PersonMapsLike,
    scores: ArrayLike,
    true_person_maps: PersonMapsLike,
    num_classes: int,
    *,
    count_background: bool = True,
    free_only: bool = False,
) -> PersonMatches:
    """Match the predicted people of one image with its true people.

    Args:
        person_maps: labels [N, H, W] in 0..K−1, or :class:`NumberedPersonMaps`.
        scores: [N], finite.
        true_person_maps: labels [G, H, W], or :class:`NumberedPersonMaps`; pixels of K or more (255) are ignored.
        num_classes: K, background included.
        count_background: whether the background is a class of the mean IoU (as in the released code); AP^p is lower
            without it.
        free_only: True compares a prediction with true people that no better prediction is matched with (as COCO does);
            False compares it with the true person it overlaps most, matched or not (as the released code does).

    Raises:
        ValueError: an argument has the wrong shape or dtype, a label is out of range, or a score is not finite.
    """
    intersection, predicted, truth = person_counts(person_maps, true_person_maps, num_classes)
    checked = as_scores("scores", scores, len(intersection))
    return match_counts(
        intersection, predicted, truth=truth, scores=checked, count_background=count_background, free_only=free_only
    )


def match_counts(
    intersection: np.ndarray,
    predicted: np.ndarray,
    truth: np.ndarray,
    scores: np.ndarray,
    *,
    count_background: bool = True,
    free_only: bool = False,
) -> PersonMatches:
    """Run :func:`match_people` on the counts of :func:`person_counts`.

    Args:
        intersection, predicted, truth: [N, G, K], [N, G, K] and [G, K].
        scores: float64 [N].
        count_background, free_only: see :func:`match_people`.
    """
    people = len(truth)
    if not people:
        shape = (len(PARSING_THRESHOLDS), len(scores))
        unmatched = np.full(shape if free_only else shape[1:], -1)
        return PersonMatches(
            scores, unmatched, overlap=np.zeros(unmatched.shape), parts=np.zeros(shape[::-1]), num_people=0
        )
    iou = divide(intersection, predicted + truth - intersection)  # [N, G, K]
    means = mean_overlap(iou if count_background else iou[..., 1:])  # [N, G]
    num_parts = np.maximum((truth[:, 1:] > 0).sum(1), 1)  # [G]
    above = (iou[..., 1:, None] > np.array(PARSING_THRESHOLDS)).sum(2)  # NaN is not above
    above = above / num_parts[:, None]  # [N, G, T]
    rows = np.arange(len(scores))
    if not free_only:
        person = means.argmax(1)  # of equal overlaps the first
        return PersonMatches(scores, person, overlap=means[rows, person], parts=above[rows, person], num_people=people)
    person, overlap = _free_people(means, scores)  # [T, N]
    steps = np.arange(len(PARSING_THRESHOLDS))[:, None]
    return PersonMatches(scores, person, overlap=overlap, parts=above[rows, person, steps].T, num_people=people)


def _free_people(means: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Find the unmatched true person that each prediction overlaps most, at each of PARSING_THRESHOLDS.

    Args:
        means: float64 [N, G], the overlaps.
        scores: float64 [N].

    Returns:
        The person int64 [T, N], −1 if none; and its overlap float64 [T, N].
    """
    person, overlap = np.full((2, len(PARSING_THRESHOLDS), len(scores)), -1.0)
    for t, threshold in enumerate(PARSING_THRESHOLDS):
        free = means.copy()
        for n in np.argsort(-scores, kind="stable"):
            best = free[n].argmax()
            if free[n, best] >= 0:  # matched people have −1
                person[t, n], overlap[t, n] = best, free[n, best]
            if overlap[t, n] > threshold and scores[n] >= LEAST_SCORE:
                free[:, best] = -1
    return person.astype(np.int64), np.maximum(overlap, 0)


def mean_overlap(iou: np.ndarray) -> np.ndarray:
    """Average IoU [..., K] over the classes where it is defined (not NaN); 0 if none is, since all pixels are
    ignored."""
    defined = ~np.isnan(iou)
    return np.where(defined, iou, 0.0).sum(-1) / np.maximum(defined.sum(-1), 1)


def ap_p(matches: Sequence[PersonMatches], threshold: float = 0.5) -> float:
    """Compute AP^p at one threshold over all images, in percent.

    Equal scores rank in the order of the images and their predictions. NaN if there is no true person; 0 if there are
    true people but no predictions.

    Raises:
        ValueError: the matches were made with `free_only` and the threshold is not in PARSING_THRESHOLDS.
    """
    if threshold not in PARSING_THRESHOLDS and any(image.person.ndim == 2 for image in matches):
        raise ValueError(f"ap_p: threshold must be one of {PARSING_THRESHOLDS} with free_only, got {threshold}")
    right, _ = _take_people(matches, threshold)
    return 100 * average_precision(right, sum(image.num_people for image in matches))


def ap_p_vol(matches: Sequence[PersonMatches]) -> float:
    """Compute the mean of :func:`ap_p` at 0.1, 0.2, …, 0.9."""
    return float(np.mean([ap_p(matches, threshold) for threshold in PARSING_THRESHOLDS]))


def pcp(matches: Sequence[PersonMatches], threshold: float = 0.5) -> float:
    """Compute the percentage of correctly parsed parts at one threshold over all images; NaN without true people.

    Raises:
        ValueError: the threshold is not in PARSING_THRESHOLDS.
    """
    if threshold not in PARSING_THRESHOLDS:
        raise ValueError(f"pcp: threshold must be one of {PARSING_THRESHOLDS}, got {threshold}")
    _, parts = _take_people(matches, threshold)
    num_people = sum(image.num_people for image in matches)
    return 100 * float(parts.sum() / num_people) if num_people else float("nan")


def average_precision(right: np.ndarray, num_people: int) -> float:
    """Compute the area under the precision-recall curve, with the best precision at that or any higher recall.

    Args:
        right: bool [D], whether each prediction is right, in descending order of score.
        num_people: number of true people or instances.

    Returns:
        0..1, or NaN if num_people is 0.
    """
    if num_people == 0:
        return float("nan")
    found = np.cumsum(right)
    recall = np.concatenate([[0.0], found / num_people, [1.0]])
    precision = np.concatenate([[0.0], found / np.arange(1, len(right) + 1), [0.0]])
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float((np.diff(recall) * envelope[1:]).sum())


def _take_people(matches: Sequence[PersonMatches], threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """Decide which predictions are right at a threshold, in descending order of score.

    Returns:
        bool [D], whether each prediction is right; and float64 [≤ D], the share of correct parts of the right ones.
    """
    if not matches:
        return np.zeros(0, bool), np.zeros(0)
    found = PersonMatches.pool(matches)
    at = lambda values: values[PARSING_THRESHOLDS.index(threshold)] if values.ndim == 2 else values  # [T, N] or [N]
    scores, person, overlap = found.scores, at(found.person), at(found.overlap)
    order = np.argsort(-scores, kind="stable")
    order = order[scores[order] >= LEAST_SCORE]
    able = order[overlap[order] > threshold]
    _, earliest = np.unique(person[able], return_index=True)
    taking = able[np.sort(earliest)]  # by rank, so that sums do not depend on the numbers of the images
    right = np.zeros(len(scores), bool)
    right[taking] = True
    if threshold not in PARSING_THRESHOLDS:
        return right[order], np.zeros(0)
    return right[order], found.parts[taking, PARSING_THRESHOLDS.index(threshold)]
