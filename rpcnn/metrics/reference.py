"""AP^p and PCP step by step: the definition that :mod:`rpcnn.metrics.parsing` is tested against, and far slower.

One confusion matrix over all pixels of the image for every pair of a predicted and a true person.
"""

import numpy as np

from .parsing import LEAST_SCORE


def person_iou_reference(person: np.ndarray, true_person: np.ndarray, num_classes: int) -> np.ndarray:
    """IoU of every class between two label maps [H, W]: float64 [K], NaN where the class is in neither."""
    counted = true_person < num_classes
    pairs = num_classes * true_person[counted].astype(np.int64) + person[counted]
    confusion = np.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)
    hits = np.diag(confusion)
    with np.errstate(invalid="ignore"):
        return hits / (confusion.sum(0) + confusion.sum(1) - hits)


def ap_p_and_pcp_reference(images: list[tuple], num_classes: int, threshold: float) -> tuple[float, float]:
    """AP^p and PCP in percent at one threshold.

    Args:
        images: (people uint8 [N, H, W], scores [N], true_people uint8 [G, H, W]) for each image.
    """
    num_people = sum(len(true_people) for _, _, true_people in images)
    if num_people == 0:
        return float("nan"), float("nan")
    predictions = []
    for i, (people, scores, _) in enumerate(images):
        predictions += [(score, i, person) for person, score in zip(people, scores, strict=True)]
    predictions.sort(key=lambda prediction: -prediction[0])  # stable
    taken, right, shares = set(), [], []
    for score, i, person in predictions:
        if score < LEAST_SCORE:
            continue
        best, best_g, best_iou = -np.inf, None, np.zeros(num_classes)
        for g, true_person in enumerate(images[i][2]):
            iou = person_iou_reference(person, true_person, num_classes)
            overlap = 0.0 if np.isnan(iou).all() else np.nanmean(iou)
            if overlap > best:
                best, best_g, best_iou = overlap, g, iou
        right.append(best > threshold and (i, best_g) not in taken)
        if right[-1]:
            taken.add((i, best_g))
            labels = np.unique(images[i][2][best_g])
            parts = labels[(labels > 0) & (labels < num_classes)]
            above = sum(best_iou[part] > threshold for part in range(1, num_classes))
            shares.append(above / len(parts) if len(parts) else 0.0)
    ap, best_precision, found = 0.0, 0.0, sum(right)
    for rank in range(len(right), 0, -1):  # from the lowest rank up: precision there or at any higher recall
        best_precision = max(best_precision, found / rank)
        if right[rank - 1]:
            ap += best_precision / num_people
            found -= 1
    return 100 * ap, 100 * sum(shares) / num_people
