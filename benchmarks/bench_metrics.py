"""The evaluator's counting core against numpy, on one painted image of 800×1067 pixels.

    pytest benchmarks/bench_metrics.py --benchmark-only

20 predictions, each a true person, shifted, with some parts wrong. The second baseline is the definition: one confusion
matrix over the whole image for each pair of a predicted and a true person. Bytes: every map read once.
"""

import numpy as np
import pytest
from measure import Case, Comparison, bench

from rpcnn.data.painted.scene import paint_maps
from rpcnn.metrics import counting

HEIGHT, WIDTH, CLASSES, TRUE_PEOPLE, PREDICTIONS = 800, 1067, 20, 4, 20


def scene():
    """Make a true label map [H, W], true person maps [G, H, W] and predicted person maps [N, H, W]."""
    _, labels, human = paint_maps(0, HEIGHT, WIDTH, people=TRUE_PEOPLE)
    true_people = np.stack([np.where(human == number, labels, 0) for number in range(1, human.max() + 1)])
    rng, people = np.random.default_rng(0), []
    for n in range(PREDICTIONS):
        swapped = np.where(rng.random(CLASSES) < 0.2, rng.integers(1, CLASSES, CLASSES), np.arange(CLASSES))
        swapped[0] = 0
        moved = np.roll(true_people[n % len(true_people)], rng.integers(-15, 16, 2), axis=(0, 1))
        people.append(swapped[moved].astype(np.uint8))
    return labels, true_people.astype(np.uint8), np.stack(people)


def by_definition(people, true_people, num_classes):
    confusion = np.array(
        [[counting.confusion_matrix_numpy(true, one, num_classes) for true in true_people] for one in people]
    )
    return np.diagonal(confusion, axis1=2, axis2=3), confusion.sum(2), confusion.sum(3)[0]


def confusion_matrix(device):
    labels, _, people = scene()
    truth, prediction = labels, people.max(0)
    ours = lambda: counting._metrics.confusion_matrix(truth, prediction, CLASSES)
    baseline = lambda: counting.confusion_matrix_numpy(truth, prediction, CLASSES)

    def check():
        expected = np.zeros((CLASSES, CLASSES), int)
        np.add.at(expected, (truth, prediction), 1)
        assert np.array_equal(ours(), expected) and np.array_equal(baseline(), expected)

    return Comparison(ours, baseline, check, 2 * truth.nbytes)


def person_counts(function, *threads):
    def make(device):
        _, true_people, people = scene()
        ours = lambda: counting._metrics.person_counts(people, true_people, CLASSES, *threads)
        baseline = lambda: function(people, true_people, CLASSES)
        expected = by_definition(people, true_people, CLASSES)
        check = lambda: [np.testing.assert_array_equal(a, b) for a, b in zip(ours(), expected, strict=True)]
        return Comparison(ours, baseline, check, people.nbytes + true_people.nbytes)

    return make


CASES = [
    Case("confusion_matrix", "one image, against numpy", confusion_matrix),
    Case("person_counts", "20 × 4 people, against numpy", person_counts(counting.person_counts_numpy)),
    Case("person_counts", "one thread, 20 × 4 people, against numpy", person_counts(counting.person_counts_numpy, 1)),
    Case("person_counts", "20 × 4 people, against the definition", person_counts(by_definition), rounds=2),
]


@pytest.mark.skipif(counting._metrics is None, reason="rpcnn._metrics is not compiled")
@pytest.mark.parametrize("case", CASES, ids=str)
def test_metrics(benchmark, case):
    bench(benchmark, case, "cpu")
