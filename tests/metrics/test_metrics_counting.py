"""The counting core, compiled and in numpy, against plain loops over pixels."""

import numpy as np
import pytest
import torch
from helpers.person_maps import blobs, numbered
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from rpcnn.metrics import NumberedPersonMaps, confusion_matrix, counting, person_counts


def counts_by_loops(people, true_people, num_classes):
    shape = (len(people), len(true_people), num_classes)
    intersection, predicted, truth = np.zeros(shape, int), np.zeros(shape, int), np.zeros(shape[1:], int)
    for g, true_person in enumerate(true_people):
        for label in true_person.flat:
            if label < num_classes:
                truth[g, label] += 1
        for n, person in enumerate(people):
            for t, p in zip(true_person.flat, person.flat, strict=True):
                if t < num_classes:
                    predicted[n, g, p] += 1
                    intersection[n, g, p] += t == p
    return intersection, predicted, truth


def test_confusion_matrix_rows_are_truth_columns_prediction(core):
    # Pixels (truth, prediction): (0,0) (0,1) (1,1) (1,1) (2,0) (255,1): the last is ignored.
    counts = confusion_matrix([[0, 0, 1], [1, 2, 255]], [[0, 1, 1], [1, 0, 1]], 3)
    assert counts.dtype == np.int64
    assert counts.tolist() == [[1, 1, 0], [0, 2, 0], [1, 0, 0]]


@pytest.mark.parametrize("size", [0, 1, 7, 8, 9, 1001])
@pytest.mark.parametrize("num_classes", [1, 3, 20, 256])
def test_confusion_matrix_counts_every_pixel_once(core, size, num_classes):
    rng = np.random.default_rng(size)
    truth = rng.integers(0, 256, size).astype(np.uint8).repeat(3)
    prediction = rng.integers(0, num_classes, size).astype(np.uint8).repeat(3)
    expected = np.zeros((256, 256), int)
    np.add.at(expected, (truth, prediction), 1)
    assert np.array_equal(confusion_matrix(truth, prediction, num_classes), expected[:num_classes, :num_classes])


@pytest.mark.parametrize("shape", [(1, 1), (5, 7), (8, 8), (9, 33), (16, 40)])
@pytest.mark.parametrize("num_classes", [1, 4, 59])
def test_person_counts_equal_counting_pixel_by_pixel(core, shape, num_classes):
    rng = np.random.default_rng(shape[1])
    people = blobs(rng, 4, *shape, largest=num_classes - 1)
    true_people = blobs(rng, 3, *shape, largest=num_classes)  # K itself is ignored
    true_people[0, 0, 0] = 255
    for got, expected in zip(
        person_counts(people, true_people, num_classes),
        counts_by_loops(people, true_people, num_classes),
        strict=True,
    ):
        assert got.dtype == np.int64
        assert np.array_equal(got, expected)


maps = lambda count, largest: arrays(np.uint8, (count, 3, 17), elements=st.integers(0, largest))


@given(people=maps(2, 2), true_people=maps(2, 4))
@settings(max_examples=60, deadline=None)
def test_compiled_and_numpy_person_counts_agree(people, true_people):
    if counting._metrics is None:
        pytest.skip("rpcnn._metrics is not built")
    compiled = counting._metrics.person_counts(people, true_people, 3)
    for got, expected in zip(compiled, counting.person_counts_numpy(people, true_people, 3), strict=True):
        assert np.array_equal(got, expected)


@pytest.mark.parametrize("shape", [(1, 1), (5, 7), (8, 8), (9, 33), (16, 40), (3, 200)])
@pytest.mark.parametrize(("n", "g"), [(0, 0), (0, 2), (3, 0), (4, 3)])
def test_numbered_people_count_as_their_maps(core, shape, n, g):
    rng = np.random.default_rng(shape[1] + n)
    people, true_people = numbered(rng, n, *shape, largest=5), numbered(rng, g, *shape, largest=9)
    wanted = counting.person_counts_numpy(np.asarray(people), np.asarray(true_people), 6)
    confusion = confusion_matrix(true_people.label_map, people.label_map, 6)
    for left in (people, np.asarray(people)):
        for right in (true_people, np.asarray(true_people)):
            for got, expected in zip(person_counts(left, right, 6), wanted, strict=True):
                assert np.array_equal(got, expected)
    got = counting.image_counts(people.label_map, people, true_people.label_map, true_people, 6)
    for one, expected in zip(got, (confusion, *wanted), strict=True):
        assert np.array_equal(one, expected)


@pytest.mark.parametrize("count", [3, 300, 600])
def test_more_person_labels_than_codes_per_layer(count):
    rng = np.random.default_rng(count)
    labels, numbers = rng.integers(0, 6, (30, 90)), rng.integers(0, count + 1, (30, 90))
    people = NumberedPersonMaps(labels, numbers, count)
    wanted = counting.person_counts_numpy(np.asarray(people), np.asarray(people), 6)
    got = counting.image_counts(people.label_map, people, people.label_map, people, 6)
    for one, expected in zip(got, (confusion_matrix(labels, labels, 6), *wanted), strict=True):
        assert np.array_equal(one, expected)


def test_overlapping_true_people_use_several_layers():
    rng = np.random.default_rng(5)
    true_people = rng.integers(0, 256, (3, 20, 40)).astype(np.uint8)  # each needs a layer of its own
    people = rng.integers(0, 200, (2, 20, 40)).astype(np.uint8)
    for got, expected in zip(
        person_counts(people, true_people, 200), counting.person_counts_numpy(people, true_people, 200), strict=True
    ):
        assert np.array_equal(got, expected)


def test_instance_ids_beyond_the_people_raise():
    if counting._metrics is None:
        pytest.skip("rpcnn._metrics is not built")
    labels, numbers = np.ones((4, 9), np.uint8), np.full((4, 9), 3, np.uint8)
    for call in (
        lambda: counting._metrics.person_counts((labels, numbers, 2), np.zeros((1, 4, 9), np.uint8), 4),
        lambda: counting._metrics.person_counts(np.zeros((1, 4, 9), np.uint8), (labels, numbers, 2), 4),
        lambda: counting._metrics.image_counts((labels, numbers, 2), (labels, numbers, 3), 4),
    ):
        with pytest.raises(ValueError, match=r"person numbers must lie in 0\.\.2, got 3"):
            call()


@pytest.mark.parametrize(("n", "g"), [(0, 0), (0, 2), (2, 0)])
@pytest.mark.parametrize("shape", [(4, 6), (0, 6)])
def test_empty_inputs_are_counted(core, n, g, shape):
    intersection, predicted, truth = person_counts(np.zeros((n, *shape), np.uint8), np.zeros((g, *shape), np.uint8), 3)
    assert intersection.shape == predicted.shape == (n, g, 3) and truth.shape == (g, 3)
    assert truth.sum() == g * shape[0] * shape[1] and truth[:, 1:].sum() == 0


def test_any_number_of_threads_counts_the_same():
    if counting._metrics is None:
        pytest.skip("rpcnn._metrics is not built")
    rng = np.random.default_rng(0)
    people, true_people = blobs(rng, 5, 600, 700, 19), blobs(rng, 3, 600, 700, 20)  # 3.4 MP: several threads start
    one = counting._metrics.person_counts(people, true_people, 20, threads=1)
    for threads in (0, 2, 7):
        other = counting._metrics.person_counts(people, true_people, 20, threads=threads)
        assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def test_strides_dtypes_and_tensors_count_the_same(core):
    rng = np.random.default_rng(1)
    truth, prediction = rng.integers(0, 4, (6, 20)), rng.integers(0, 4, (6, 20))
    expected = confusion_matrix(truth.astype(np.uint8), prediction.astype(np.uint8), 4)
    assert np.array_equal(confusion_matrix(truth, torch.from_numpy(prediction), 4), expected)
    wide = np.repeat(truth.astype(np.uint8), 2, axis=1)
    assert np.array_equal(confusion_matrix(wide[:, ::2], prediction, 4), expected)


def test_inputs_are_not_changed(core):
    people, true_people = np.ones((1, 4, 4), np.uint8), np.full((1, 4, 4), 255, np.uint8)
    person_counts(people, true_people, 2)
    confusion_matrix(true_people, people, 2)
    assert (people == 1).all() and (true_people == 255).all()


zeros = lambda *shape: np.zeros(shape, int)


@pytest.mark.parametrize(
    ("function", "arguments", "message"),
    [
        ("confusion_matrix", (np.zeros(3, int), np.array([0, 1, 7]), 3), r"prediction must lie in 0\.\.2, got 7"),
        ("confusion_matrix", (np.array([0, 255]), np.array([0, 9]), 3), r"prediction must lie in 0\.\.2, got 9"),
        ("confusion_matrix", (np.zeros((2, 3), int), np.zeros((3, 2), int), 3), r"prediction .*\[2, 3\], got \[3, 2\]"),
        ("confusion_matrix", (np.zeros(3, int), np.zeros((3, 1), int), 3), r"prediction .*\[3\], got \[3, 1\]"),
        ("confusion_matrix", (np.zeros(3), np.zeros(3, int), 3), "truth must hold integer labels.*float64"),
        ("confusion_matrix", (np.zeros(3, int), np.array([0, -1, 2]), 3), r"prediction .* 0\.\.255, got -1\.\.2"),
        ("confusion_matrix", (np.zeros(3, int), np.array([0, 1, 300]), 3), r"prediction .* 0\.\.255, got 0\.\.300"),
        ("confusion_matrix", (np.zeros(3, int), np.zeros(3, int), 0), r"num_classes .* 1\.\.256, got 0"),
        ("confusion_matrix", (np.zeros(3, int), np.zeros(3, int), 257), r"num_classes .* 1\.\.256, got 257"),
        ("person_counts", (zeros(4, 4), zeros(1, 4, 4), 3), r"person_maps .*\[N, H, W\], got \[4, 4\]"),
        ("person_counts", (zeros(1, 4, 4), zeros(4), 3), r"true_person_maps .*\[G, H, W\], got \[4\]"),
        ("person_counts", (zeros(1, 4, 4), zeros(1, 4, 5), 3), "one height and width"),
        ("person_counts", (zeros(1, 4, 4) + 3, zeros(1, 4, 4), 3), r"person_maps must lie in 0\.\.2, got 3"),
        ("person_counts", (zeros(1, 4, 4), zeros(1, 4, 4) + 0.0, 3), "true_person_maps must hold integer labels"),
    ],
)
def test_bad_input_is_an_error_that_names_the_argument(core, function, arguments, message):
    with pytest.raises(ValueError, match=message):
        getattr(counting, function)(*arguments)


@pytest.mark.parametrize("module", ["compiled", "numpy"])
def test_the_core_itself_refuses_other_dtypes(module):
    if module == "compiled" and counting._metrics is None:
        pytest.skip("rpcnn._metrics is not built")
    confusion, persons = (
        (counting._metrics.confusion_matrix, counting._metrics.person_counts)
        if module == "compiled"
        else (counting.confusion_matrix_numpy, counting.person_counts_numpy)
    )
    with pytest.raises(ValueError, match="confusion_matrix: prediction must be uint8, got int64"):
        confusion(np.zeros(3, np.uint8), np.zeros(3, np.int64), 2)
    with pytest.raises(ValueError, match="person_counts: true_person_maps must be uint8, got float32"):
        persons(np.zeros((1, 2, 2), np.uint8), np.zeros((1, 2, 2), np.float32), 2)
