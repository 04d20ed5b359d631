"""The probabilities that a result keeps if asked."""

import pathlib

import pytest
import torch

from rpcnn import Predictor, ops

RUN = pathlib.Path(__file__).parents[1] / "cli" / "run_of_version_0_1"


@pytest.fixture(scope="module")
def predictor():
    return Predictor(RUN, "cpu", keep_probabilities=True, min_parsing_score=0.01)


@pytest.fixture(scope="module")
def result(predictor):
    return predictor(RUN / "scene.png")


def test_the_maps_are_made_of_them(predictor, result):
    kept, settings = result.probabilities, predictor.config.inference
    assert len(kept.people) == len(result) > 0
    labels, instances, people = ops.paste_parsing(
        kept.people,
        kept.windows,
        result.label_map.shape,
        result.scores >= settings.min_parsing_score,
        semantic=kept.whole,
        semantic_size=kept.whole_size,
        semantic_weight=settings.instance_semantic_weight,
        semantic_gate=settings.semantic_gate,
    )
    assert torch.equal(labels, result.label_map) and torch.equal(instances, result.instance_map.int())
    assert torch.equal(people, result.person_maps)


def test_they_sum_to_one_and_can_be_edited_and_trained_on(result):
    for values, classes in ((result.probabilities.people, 1), (result.probabilities.whole, 0)):
        assert torch.allclose(values.sum(classes), torch.ones(()), atol=1e-5)
        values += 0
        (values * torch.ones((), requires_grad=True)).sum().backward()


def test_nothing_is_kept_unless_asked():
    assert Predictor(RUN, "cpu")(RUN / "scene.png").probabilities is None
