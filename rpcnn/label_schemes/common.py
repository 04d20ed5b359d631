"""What two label sets can both tell apart: classes on which maps of one are scored against a truth of the other."""

from dataclasses import dataclass

import numpy as np

from rpcnn.labels import IGNORE, LabelSet

from .scheme import Scheme


@dataclass(frozen=True)
class CommonClasses:
    """The classes that a truth and the predictions of another system have in common.

    Attributes:
        labels: the classes; a name such as UpperClothes+Coat lists the labels of the truth that are scored as one.
        from_truth: lookup table uint8 [256] from labels of the truth; 255 where a label has no counterpart, so that its
            pixels are not counted.
        from_prediction: lookup table uint8 [256] from labels of the predictions; 255 for values that are none of them.
        predicted: the label set of the predictions.
        lines: which labels are one class, which are not counted and which are taken for background, for people to read.
    """

    labels: LabelSet
    from_truth: np.ndarray
    from_prediction: np.ndarray
    predicted: LabelSet
    lines: tuple[str, ...]

    def of_prediction(self, labels: np.ndarray, place: str) -> np.ndarray:
        """The classes of predicted labels. Raises ValueError, with `place`, for a value that is no label."""
        classes = self.from_prediction[labels]
        if (classes == IGNORE).any():
            raise ValueError(
                f"{place}: label {labels[classes == IGNORE].flat[0]} is none of the {self.predicted.num_classes} of "
                f"{self.predicted.name}"
            )
        return classes


def common_classes(scheme: Scheme, truth: LabelSet) -> CommonClasses:
    """Find the classes that a scheme's labels and those of a truth have in common.

    A label of the scheme and a label of the truth belong to one class if pixels may have both (`Scheme.meanings`), and
    so does, in turn, everything that is connected by such pairs: these are the finest classes on which no right
    prediction can be counted as wrong. The two backgrounds are one class. A label of the truth without a partner is not
    counted; a label of the scheme without one is background.

    Raises:
        ValueError: no label of the scheme but the background has a partner.
    """
    ours = {name.lower(): number for number, name in enumerate(truth.names)}
    groups: list[tuple[set[int], set[int]]] = [({0}, {0})]  # labels of the truth, and of the scheme
    for name, partners in scheme.meanings().items():
        number = scheme.label_set.names.index(name)
        joined = ({ours[partner.lower()] for partner in partners if partner.lower() in ours}, {number})
        if joined[0]:
            touching = [group for group in groups if group[0] & joined[0] or group[1] & joined[1]]
            groups = [group for group in groups if group not in touching]
            groups.append(tuple(set().union(*sides) for sides in zip(joined, *touching, strict=True)))  # type: ignore[arg-type]
    groups.sort(key=lambda group: min(group[0]))
    if len(groups) < 2:
        raise ValueError(
            f"map-classes: {scheme.label_set.name} and {truth.name} have no class in common but the background"
        )
    from_truth, from_prediction = np.full(256, IGNORE, np.uint8), np.full(256, IGNORE, np.uint8)
    from_prediction[: scheme.label_set.num_classes] = 0
    for number, (true, predicted) in enumerate(groups):
        from_truth[list(true)], from_prediction[list(predicted)] = number, number
    names = (
        _name([truth.names[label] for label in sorted(true)], [scheme.label_set.names[label] for label in predicted])
        for true, predicted in groups
    )
    palette = tuple(truth.palette[min(true)] for true, _ in groups)
    labels = LabelSet(f"{truth.name} and {scheme.label_set.name}", tuple(names), palette=palette)
    return CommonClasses(
        labels, from_truth, from_prediction, scheme.label_set, lines=_lines(groups, truth, scheme.label_set)
    )


def _name(true: list[str], predicted: list[str]) -> str:
    if len(true) <= 3:
        return "+".join(true)
    return predicted[0] if len(predicted) == 1 else f"{true[0]}+{len(true) - 1} more"


def _lines(groups: list[tuple[set[int], set[int]]], truth: LabelSet, predicted: LabelSet) -> tuple[str, ...]:
    pick = lambda labels, numbers: ", ".join(labels.names[number] for number in sorted(numbers))
    lines = [
        f"scored as one class: {pick(truth, true)} (of {truth.name}) = {pick(predicted, theirs)} (of {predicted.name})"
        for true, theirs in groups
        if len(true) > 1 or len(theirs) > 1
    ]
    alone = set(range(truth.num_classes)).difference(*(true for true, _ in groups))
    foreign = set(range(predicted.num_classes)).difference(*(theirs for _, theirs in groups))
    if alone:
        lines.append(f"not counted, since {predicted.name} has no such label: {pick(truth, alone)}")
    if foreign:
        lines.append(f"taken for background, since {truth.name} has no such label: {pick(predicted, foreign)}")
    return tuple(lines)
