"""Numbers for the people of a video that stay with them from frame to frame."""

from dataclasses import dataclass

import numpy as np


@dataclass
class _Track:
    number: int
    box: np.ndarray
    """float [4]: where it was seen last."""
    velocity: np.ndarray
    """float [2]: pixels a frame of its center, in x and y."""
    unseen: int = 0
    """Frames since it was seen."""

    def expected(self) -> np.ndarray:
        return self.box + np.tile(self.velocity * (self.unseen + 1), 2)


class Tracker:
    """Gives each person a number, 1, 2, …, by the overlap of boxes in successive frames.

    A person of the frame before is expected at its box, moved by its velocity; the velocity is the mean of the last
    step and the velocity before it. Pairs of an expected and a found box with an IoU of at least `min_iou` are taken in
    the order of their IoU, the largest first, each box once. What is left over is compared in the same way with people
    who were not seen for up to `patience` frames, at the place where they were seen last and where they would be by
    now, whichever fits better. A box that is still left gets a new number. Looks are not compared: people who change
    places while nobody sees them change numbers.

    Args:
        min_iou: in 0..1.
        patience: frames for which a person may be away and keep its number.
    """

    def __init__(self, min_iou: float = 0.3, patience: int = 30):
        self.min_iou, self.patience = min_iou, patience
        self._tracks: list[_Track] = []
        self._last = 0

    def update(self, boxes: np.ndarray) -> list[int]:
        """The numbers of the people of the next frame; boxes float [N, 4] x1 y1 x2 y2 in pixels."""
        boxes = np.asarray(boxes, float).reshape(-1, 4)
        numbers = [0] * len(boxes)
        for away in (False, True):
            tracks = [track for track in self._tracks if (track.unseen > 0) == away]
            free = [i for i, number in enumerate(numbers) if not number]
            overlap = _iou([track.expected() for track in tracks], boxes[free])
            if away:
                overlap = np.maximum(overlap, _iou([track.box for track in tracks], boxes[free]))
            for row, column in _pairs(overlap, self.min_iou):
                numbers[free[column]] = tracks[row].number
        seen = {number: box for number, box in zip(numbers, boxes, strict=True) if number}
        for track in self._tracks:
            if track.number in seen:
                step = _center(seen[track.number]) - _center(track.box)
                track.velocity = (track.velocity + step / (track.unseen + 1)) / 2
                track.box, track.unseen = seen[track.number], 0
            else:
                track.unseen += 1
        self._tracks = [track for track in self._tracks if track.unseen <= self.patience]
        for i, number in enumerate(numbers):
            if not number:
                self._last += 1
                numbers[i] = self._last
                self._tracks.append(_Track(self._last, boxes[i], np.zeros(2)))
        return numbers


def _center(box: np.ndarray) -> np.ndarray:
    return (box[:2] + box[2:]) / 2


def _iou(first: list[np.ndarray], second: np.ndarray) -> np.ndarray:
    """float [N, M]: the IoU of each of N boxes with each of M."""
    one = np.asarray(first, float).reshape(-1, 1, 4)
    sides = np.minimum(one[..., 2:], second[None, :, 2:]) - np.maximum(one[..., :2], second[None, :, :2])
    shared = sides.clip(min=0).prod(2)
    areas = (one[..., 2:] - one[..., :2]).prod(2) + (second[:, 2:] - second[:, :2]).prod(1)
    return shared / np.maximum(areas - shared, 1e-9)


def _pairs(overlap: np.ndarray, least: float) -> list[tuple[int, int]]:
    """Rows and columns of the largest values, each once; of equal ones the first."""
    rows, columns, pairs = set(), set(), []
    for index in np.argsort(-overlap, axis=None, kind="stable"):
        row, column = (int(number) for number in np.unravel_index(index, overlap.shape))
        if overlap[row, column] < least:
            break
        if row not in rows and column not in columns:
            rows.add(row)
            columns.add(column)
            pairs.append((row, column))
    return pairs
