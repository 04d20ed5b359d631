"""AP^p, PCP, AP^r and AP^h step by step: the definitions that the tests compare the metrics with, and far slower.

Makes one confusion matrix over all pixels of the image for every pair of a predicted and a true person, and one mask
for every instance.
"""

import numpy as np

from .parsing import LEAST_SCORE


def person_iou_reference(person: np.ndarray, true_person: np.ndarray, num_classes: int) -> np.ndarray:
    """Compute the IoU of every class between two label maps [H, W]: float64 [K], NaN for a class in neither map."""
    counted = true_person < num_classes
    pairs = num_classes * true_person[counted].astype(np.int64) + person[counted]
    confusion = np.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)
    intersection = np.diag(confusion)
    with np.errstate(invalid="ignore"):
        return intersection / (confusion.sum(0) + confusion.sum(1) - intersection)


def ap_p_and_pcp_reference(images: list[tuple], num_classes: int, threshold: float) -> tuple[float, float]:
    """Compute AP^p and PCP in percent at one threshold.

    Args:
        images: (person_maps uint8 [N, H, W], scores [N], true_person_maps uint8 [G, H, W]) for each image.
    """
    num_people = sum(len(true_person_maps) for _, _, true_person_maps in images)
    if num_people == 0:
        return float("nan"), float("nan")
    predictions = []
    for i, (person_maps, scores, _) in enumerate(images):
        predictions += [(score, i, person) for person, score in zip(person_maps, scores, strict=True)]
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


def instance_ap_reference(images: list[tuple], num_classes: int, threshold: float, part: int | None) -> float:
    """Compute the average precision in percent of the instances of one part, or of whole people if `part` is None.

    Args:
        images: (person_maps uint8 [N, H, W], scores [N], true_person_maps uint8 [G, H, W]) for each image.
    """
    mask = lambda person: (person > 0) & (person < num_classes) if part is None else person == part
    predictions, truth = [], 0
    for i, (person_maps, scores, true_person_maps) in enumerate(images):
        predictions += [
            (score, i, person) for person, score in zip(person_maps, scores, strict=True) if mask(person).any()
        ]
        truth += sum(bool(mask(true_person).any()) for true_person in true_person_maps)
    if truth == 0:
        return float("nan")
    predictions.sort(key=lambda prediction: -prediction[0])  # stable
    taken, right = set(), []
    for _, i, person in predictions:
        best, best_g = -1.0, None
        for g, true_person in enumerate(images[i][2]):
            if (i, g) in taken or not mask(true_person).any():
                continue
            counted = true_person < num_classes
            predicted, true = mask(person) & counted, mask(true_person)
            iou = (predicted & true).sum() / (predicted | true).sum()
            if iou > best:
                best, best_g = iou, g
        right.append(best > threshold)
        if right[-1]:
            taken.add((i, best_g))
    area, found, best_precision = 0.0, sum(right), 0.0
    for rank in range(len(right), 0, -1):
        best_precision = max(best_precision, found / rank)
        if right[rank - 1]:
            area += best_precision / truth
            found -= 1
    return 100 * area
