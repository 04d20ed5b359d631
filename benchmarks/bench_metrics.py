"""The evaluator's counting: compiled, in numpy, and by one confusion matrix over the image for each pair of people.

One painted image of 800 × 1067 pixels and 20 predictions, each a true person moved a little with some parts wrong.
"""

import numpy as np
import pytest
from measure import measure

from rpcnn.data.painted import paint_maps
from rpcnn.metrics import counting

HEIGHT, WIDTH, CLASSES, TRUE_PEOPLE, PREDICTIONS = 800, 1067, 20, 4, 20


def person_counts_by_definition(people, true_people, num_classes):
    confusion = np.array(
        [[counting.confusion_matrix_numpy(true, one, num_classes) for true in true_people] for one in people]
    )
    return np.diagonal(confusion, axis1=2, axis2=3), confusion.sum(2), confusion.sum(3)[0]


COMPILED = counting._metrics
CONFUSION = {"numpy": counting.confusion_matrix_numpy}
PERSONS = {"numpy": counting.person_counts_numpy, "definition": person_counts_by_definition}
if COMPILED:
    one_thread = lambda people, true_people, num_classes: COMPILED.person_counts(people, true_people, num_classes, 1)
    CONFUSION = {"compiled": COMPILED.confusion_matrix} | CONFUSION
    PERSONS = {"compiled": COMPILED.person_counts, "compiled, one thread": one_thread} | PERSONS


@pytest.fixture(scope="module")
def scene():
    """True label map [H, W], true people [G, H, W], predicted people [N, H, W]."""
    _, labels, human = paint_maps(0, HEIGHT, WIDTH, people=TRUE_PEOPLE)
    true_people = np.stack([np.where(human == number, labels, 0) for number in range(1, human.max() + 1)])
    rng, people = np.random.default_rng(0), []
    for n in range(PREDICTIONS):
        swapped = np.where(rng.random(CLASSES) < 0.2, rng.integers(1, CLASSES, CLASSES), np.arange(CLASSES))
        swapped[0] = 0
        moved = np.roll(true_people[n % len(true_people)], rng.integers(-15, 16, 2), axis=(0, 1))
        people.append(swapped[moved].astype(np.uint8))
    return labels, true_people.astype(np.uint8), np.stack(people)


@pytest.mark.parametrize("contender", CONFUSION)
def test_confusion_matrix(benchmark, scene, contender):
    benchmark.group = "confusion_matrix"
    truth, prediction = scene[0], scene[2].max(0)
    counts = measure(benchmark, CONFUSION[contender], truth, prediction, CLASSES, moved=2 * truth.nbytes)
    wanted = np.zeros((CLASSES, CLASSES), int)
    np.add.at(wanted, (truth, prediction), 1)
    assert np.array_equal(counts, wanted)


@pytest.mark.parametrize("contender", PERSONS)
def test_person_counts(benchmark, scene, contender):
    benchmark.group = f"person_counts, {PREDICTIONS} predictions"
    _, true_people, people = scene
    moved = true_people.nbytes + people.nbytes
    counts = measure(benchmark, PERSONS[contender], people, true_people, CLASSES, moved=moved)
    for got, wanted in zip(counts, person_counts_by_definition(people, true_people, CLASSES), strict=True):
        assert np.array_equal(got, wanted)
