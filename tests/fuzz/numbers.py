"""The evaluator's counting core against numpy, and the compiled modules with arguments of any kind."""

import contextlib
from random import Random

import numpy as np

from rpcnn import _labelmaps, _metrics
from rpcnn.labelmaps.people import NumberedPersonMaps
from rpcnn.labelmaps.run_lengths import _paint_numpy
from rpcnn.metrics import counting


def _labels(r: Random, shape, classes: int) -> np.ndarray:
    noise = np.random.default_rng(r.getrandbits(60))
    labels = noise.integers(0, classes, shape, dtype=np.uint8)
    return np.where(noise.random(shape) < r.random(), labels, 0).astype(np.uint8)


def evaluator(r: Random) -> None:
    """Compiled counts equal numpy's, of overlapping people and of numbered ones."""
    classes, height, width = r.choice([1, 2, 20, 59, 256]), r.randint(0, 40), r.randint(0, 90)
    truth, guess = (_labels(r, (height, width), classes) for _ in range(2))
    if r.random() < 0.5:
        truth = np.where(truth == 1, 255, truth).astype(np.uint8)
    assert np.array_equal(
        _metrics.confusion_matrix(truth, guess, classes), counting.confusion_matrix_numpy(truth, guess, classes)
    )
    sides = []
    for labels in (guess, truth):
        people = r.randint(0, 6)
        if r.random() < 0.5:
            numbers = _labels(r, (height, width), people + 1)
            sides.append(NumberedPersonMaps(labels, numbers, people))
        else:
            sides.append(_labels(r, (people, height, width), classes))
    got = counting.person_counts(*sides, classes)
    want = counting.person_counts_numpy(*map(np.asarray, sides), classes)
    assert all(np.array_equal(a, b) for a, b in zip(got, want, strict=True)), "person_counts differs"
    code = bytes(r.choice(range(40, 120)) for _ in range(r.randint(0, 9)))
    columns = [np.zeros((width, height), np.uint8) for _ in range(2)]
    fits = [_labelmaps.paint_runs(columns[0], code, 7), _paint_numpy(columns[1], code, 7)]
    assert fits[0] == fits[1], f"paint_runs says {fits} of {code!r}"
    assert not fits[0] or np.array_equal(*columns), f"paint_runs differs for {code!r}"


def private_modules(r: Random) -> None:
    """rpcnn._metrics and rpcnn._labelmaps raise, or return, whatever they are given."""
    labels = np.zeros((4, 4), np.uint8)
    values = [
        *(
            None,
            0,
            1,
            -1,
            3,
            256,
            2**40,
            2**64,
            1.5,
            "x",
            b"\0\0",
            [],
            [0.5],
            (),
            {},
            labels,
            np.zeros((2, 4, 4), np.uint8),
        ),
        *(
            (labels, labels, 1),
            (labels, labels, 2**40),
            (labels, None, 1),
            (labels, labels),
            np.zeros((0, 4), np.uint8),
        ),
        *(np.zeros((1, 1, 1)), np.zeros((1, 1), bool), np.zeros(1, int), np.full((4, 4), 255, np.uint8), np.zeros(())),
        *(labels.T[::2], labels.astype(">u2"), np.full((4, 4), 9, np.uint16), np.array(["a"]), np.array([2**62])),
    ]
    module = r.choice([_metrics, _labelmaps])
    names = [name for name in dir(module) if not name.startswith("_")]
    with contextlib.suppress(TypeError, ValueError, OverflowError, MemoryError):
        getattr(module, r.choice(names))(*(r.choice(values) for _ in range(r.choice([2, 3, 3, 3, 4, 5, 5]))))
