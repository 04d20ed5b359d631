"""All metrics of the paper, image by image, in bounded memory."""

import numpy as np

from ..labels import LabelSet
from .boxes import ap_bbox
from .parsing import THRESHOLDS, parsing_ap, person_ious
from .semantic import as_labels, confusion_matrix, semantic_scores


class ParsingEvaluator:
    """Counts per image, metrics at the end; no map is kept.

    Arrays may be numpy or CPU tensors. `state` and `merge` join the counts of several processes.

    Args:
        num_classes: K, background included.
    """

    def __init__(self, num_classes: int):
        self.num_classes = num_classes
        self.confusion = np.zeros((num_classes, num_classes), dtype=np.int64)
        self.positives = 0
        self.rows: list[tuple] = []  # score, image, person, overlap, right parts per threshold
        self.images: list[dict] = []

    def add(
        self, *, labels, people, scores, boxes, box_scores, true_labels, true_people, true_boxes
    ) -> None:  # fmt: skip
        """One image: its prediction and its truth.

        Args:
            labels, true_labels: [H, W] label maps; true pixels of K or more (255) do not count.
            people, true_people: [N, H, W] and [G, H, W], one label map per person.
            scores, box_scores: [N] parsing scores and box scores; boxes, true_boxes: [N, 4], [G, 4] in pixels.

        Raises:
            ValueError: sizes differ, or a label is out of range.
        """
        k, image = self.num_classes, len(self.images)
        true_people, people = as_labels("true_people", true_people), as_labels("people", people)
        scores = np.asarray(scores, dtype=float)
        if len(people) != len(scores):
            raise ValueError(f"ParsingEvaluator: one score per person wanted, got {len(scores)} for {len(people)}")
        if len(people) and len(true_people) and people.shape[1:] != true_people.shape[1:]:
            raise ValueError(
                f"ParsingEvaluator: people must have the truth's size {true_people.shape[1:]}, got {people.shape[1:]}"
            )
        if true_people.size and true_people.max() >= k:
            raise ValueError(f"ParsingEvaluator: true_people must lie in 0..{k - 1}, got {true_people.max()}")
        self.confusion += confusion_matrix(true_labels, labels, k)
        self.positives += len(true_people)
        counts = np.array([np.bincount(p.ravel(), minlength=k) for p in true_people]).reshape(-1, k)
        for person, score in zip(people, scores, strict=True):
            if len(true_people) == 0:
                self.rows.append((score, image, -1, 0.0, [0.0] * len(THRESHOLDS)))
                continue
            ious = person_ious(person, true_people, k, counts)
            means = np.nanmean(ious, axis=1)
            best = int(means.argmax())
            parts = max(int((counts[best, 1:] > 0).sum()), 1)
            right = [float((np.nan_to_num(ious[best, 1:]) > t).sum() / parts) for t in THRESHOLDS]
            self.rows.append((score, image, best, float(means[best]), right))
        to_array = lambda values: np.asarray(values, dtype=float)
        self.images.append(dict(boxes=to_array(boxes), scores=to_array(box_scores), true_boxes=to_array(true_boxes)))

    def state(self) -> dict:
        """What another process's evaluator needs to `merge` this one."""
        return dict(confusion=self.confusion, positives=self.positives, rows=self.rows, images=self.images)

    def merge(self, state: dict) -> None:
        """Takes in the images of another evaluator's `state`."""
        offset = len(self.images)
        self.confusion += state["confusion"]
        self.positives += state["positives"]
        self.rows += [(score, image + offset, *rest) for score, image, *rest in state["rows"]]
        self.images += state["images"]

    def summarize(self) -> dict:
        """miou, pixel_accuracy, mean_accuracy, ap_p_50, ap_p_vol, pcp_50, ap_bbox in percent, and their details:
        iou (a list over classes), ap_p_10 … ap_p_90, pcp_10 … pcp_90; and how many images and people there were."""
        results = semantic_scores(self.confusion)
        columns = list(zip(*self.rows, strict=True)) if self.rows else [[]] * 5
        results |= parsing_ap(*columns, self.positives)
        results["ap_bbox"] = ap_bbox(self.images)
        return results | {"images": len(self.images), "people": self.positives}


def format_table(results: dict, labels: LabelSet) -> str:
    """The metrics as plain text: one line with the paper's numbers, one with their details, one with IoU per class."""
    columns = {
        "mIoU": "miou",
        "Pixel acc.": "pixel_accuracy",
        "Mean acc.": "mean_accuracy",
        "AP^p_50": "ap_p_50",
        "AP^p_vol": "ap_p_vol",
        "PCP_50": "pcp_50",
        "AP^bbox": "ap_bbox",
    }
    width = 11
    classes = [
        f"{name} {'-' if iou is None else f'{iou:.1f}'}" for name, iou in zip(labels.names, results["iou"], strict=True)
    ]
    return "\n".join(
        [
            "".join(f"{title:>{width}}" for title in columns),
            "".join(f"{results[key]:>{width}.2f}" for key in columns.values()),
            f"on {results['images']} images with {results['people']} people, in percent",
            "AP^p at 0.1 … 0.9: " + " ".join(f"{results[f'ap_p_{10 * k}']:.1f}" for k in range(1, 10)),
            "IoU: " + ", ".join(classes),
        ]
    )
