"""AP^p and PCP: how well whole people are parsed, and in which order they are scored.

A prediction is a label map of one person over the whole image (maps may overlap) with a score. Its overlap with a true
person is the mean over classes of IoU over all pixels of the image, background included; a class in neither is passed
over. In order of score each prediction takes the person of its image that it overlaps most, already taken or not;
above the threshold and not yet taken it is a true positive, else a false one. AP^p_vol is the mean of AP at 0.1, 0.2,
…, 0.9. PCP: of a matched person the share of its parts whose own IoU exceeds the threshold; unmatched people count 0.
"""

import numpy as np

from .counting import joint_histogram

THRESHOLDS = tuple(round(0.1 * k, 1) for k in range(1, 10))
LEAST_SCORE = 0.001  # predictions below it are neither right nor wrong (released code)


def person_ious(
    prediction: np.ndarray, true_people: np.ndarray, num_classes: int, truth_counts: np.ndarray
) -> np.ndarray:
    """IoU per class of one predicted person with each true one: float64 [G, K], NaN where a class is in neither.

    Only the prediction's bounding box is visited: outside it the prediction is background, so the truth's pixels there
    fall into column 0 of the confusion matrix, and the truth's histogram of the whole image gives their number.

    Args:
        prediction: uint8 [H, W]; 0 outside the person.
        true_people: uint8 [G, H, W].
        truth_counts: int64 [G, K], each true person's histogram over the whole image.
    """
    rows, columns = np.flatnonzero(prediction.any(1)), np.flatnonzero(prediction.any(0))
    window = (slice(0, 0), slice(0, 0))
    if len(rows):
        window = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
    inside = np.ascontiguousarray(prediction[window])
    ious = np.empty((len(true_people), num_classes))
    for g, person in enumerate(true_people):
        confusion = joint_histogram(np.ascontiguousarray(person[window]), inside, num_classes)
        hits, truth = np.diag(confusion).copy(), truth_counts[g]
        predicted = confusion.sum(0)
        outside = truth - confusion.sum(1)
        hits[0] += outside[0]
        predicted[0] += outside.sum()
        union = truth + predicted - hits
        ious[g] = np.divide(hits, union, out=np.full(num_classes, np.nan), where=union > 0)
    return ious


def person_ious_reference(prediction: np.ndarray, person: np.ndarray, num_classes: int) -> np.ndarray:
    """The definition of :func:`person_ious` for one true person: one confusion matrix over all pixels of the image."""
    pairs = person.astype(np.int64).ravel() * num_classes + prediction.ravel()
    confusion = np.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)
    hits = np.diag(confusion)
    union = confusion.sum(0) + confusion.sum(1) - hits
    return np.divide(hits, union, out=np.full(num_classes, np.nan), where=union > 0)


def average_precision(hit: np.ndarray, positives: int) -> float:
    """Area under the precision envelope (all points), in 0..1, of ranked predictions.

    Args:
        hit: bool [D], true positives among the predictions, best score first.
        positives: number of true people; 0 gives 0.
    """
    if positives == 0 or len(hit) == 0:
        return 0.0
    true = np.cumsum(hit)
    recall, precision = true / positives, true / np.arange(1, len(hit) + 1)
    recall = np.concatenate([[0.0], recall, [1.0]])
    precision = np.concatenate([[0.0], precision, [0.0]])
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    steps = np.flatnonzero(recall[1:] != recall[:-1])
    return float(((recall[steps + 1] - recall[steps]) * envelope[steps + 1]).sum())


def parsing_ap(scores, images, people, overlaps, right_parts, positives: int) -> dict:
    """AP^p and PCP from one row per prediction.

    Args:
        scores: [D] floats; ties keep their order; NaN counts as the lowest score.
        images: [D] number of the image; people: [D] number of the most overlapped true person there, −1 without any.
        overlaps: [D] mean IoU with it; right_parts: [D, T] share of its parts above each of the T thresholds.
        positives: number of true people in all images.

    Returns:
        Percent: ap_p_10 … ap_p_90, ap_p_vol; pcp_10 … pcp_90.
    """
    scores = np.nan_to_num(np.asarray(scores, dtype=float), nan=-np.inf)
    order = np.argsort(-scores, kind="stable")
    order = order[scores[order] >= LEAST_SCORE]
    results = {}
    for t, threshold in enumerate(THRESHOLDS):
        taken: set[tuple[int, int]] = set()
        hit = np.zeros(len(order), dtype=bool)
        parts = 0.0
        for rank, d in enumerate(order):
            person = (int(images[d]), int(people[d]))
            if person[1] >= 0 and overlaps[d] > threshold and person not in taken:
                taken.add(person)
                hit[rank] = True
                parts += right_parts[d][t]
        results[f"ap_p_{10 * (t + 1)}"] = 100 * average_precision(hit, positives)
        results[f"pcp_{10 * (t + 1)}"] = 100 * float(parts / positives) if positives else 0.0
    results["ap_p_vol"] = float(np.mean([results[f"ap_p_{10 * (t + 1)}"] for t in range(len(THRESHOLDS))]))
    return results
