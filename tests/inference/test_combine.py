"""From detections to maps of the whole image (Fig. 4)."""

import pytest
import torch
from helpers.inference import combined

from rpcnn.labels import CIHP
from rpcnn.model import Detections

K = 4


def one_hot(labels: torch.Tensor, confidence: float = 1.0) -> torch.Tensor:
    """Probabilities [K, H, W]: `confidence` for the label, the rest split evenly over the other classes."""
    hot = torch.nn.functional.one_hot(labels.long(), K).movedim(-1, 0).float()
    return hot * confidence + (1 - hot) * (1 - confidence) / (K - 1)


def detections(boxes, labels, scores, semantic=None, size=(16, 24), confidence=1.0) -> Detections:
    """People whose whole box has one label, with S_parsing equal to `scores`."""
    n = len(boxes)
    maps = [one_hot(torch.full((8, 8), label), confidence) for label in labels]
    scores = torch.tensor(scores, dtype=torch.float32)
    return Detections(
        boxes=torch.tensor(boxes, dtype=torch.float32).reshape(n, 4),
        box_scores=scores,
        iou_scores=scores,
        person_probs=torch.stack(maps) if n else torch.zeros(0, K, 8, 8),
        label_probs=semantic,
        image_size=size,
    )


def test_a_constant_map_fills_exactly_its_box():
    result = combined(detections([[3, 2, 11, 13]], [2], [0.9]), (16, 24), CIHP)
    expected = torch.zeros(16, 24, dtype=torch.uint8)
    expected[2:13, 3:11] = 2
    assert torch.equal(result.label_map, expected)
    assert torch.equal(result.person_maps[0], expected)
    assert torch.equal(result.instance_map, (expected > 0).to(torch.uint8))


def test_a_box_contains_pixels_by_their_centers():
    result = combined(detections([[2.5, 1.51, 5.49, 4.5]], [1], [0.9]), (16, 24), CIHP)
    rows, columns = result.person_maps[0].nonzero(as_tuple=True)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (2, 3, 2, 4)


def test_a_box_beyond_the_border_is_cut():
    result = combined(
        detections([[-4, -4, 4, 4], [20, 12, 40, 40], [30, 30, 40, 40]], [1, 2, 3], [0.9, 0.8, 0.7]), (16, 24), CIHP
    )
    assert result.person_maps.flatten(1).count_nonzero(dim=1).tolist() == [16, 16, 0]


def test_maps_are_sampled_at_pixel_centers():
    # Left half of the map label 1, right half label 2: the edge falls in the middle of the box.
    found = detections([[4, 0, 20, 16]], [1], [0.9])
    found.person_probs[0] = one_hot(torch.tensor([1, 1, 1, 1, 2, 2, 2, 2]).expand(8, 8))
    assert combined(found, (16, 24), CIHP).person_maps[0][8].tolist() == [0] * 4 + [1] * 8 + [2] * 8 + [0] * 4


def test_boxes_and_maps_reach_the_image_s_own_size():
    semantic = one_hot(torch.tensor([[1, 0, 0, 0, 0, 0], [0] * 6, [0] * 6, [0, 0, 0, 0, 0, 3]]), 0.97)
    result = combined(detections([[8, 4, 16, 8]], [2], [0.9], semantic), (32, 24), CIHP)  # twice as high, as wide
    assert result.boxes.tolist() == [[8, 8, 16, 16]]
    assert result.label_map[12].tolist() == [0] * 8 + [2] * 8 + [0] * 8
    assert result.label_map[0, 0] == 1 and result.label_map[31, 23] == 3


def test_the_better_person_wins_and_is_number_one():
    boxes = [[0, 0, 10, 10], [5, 0, 15, 10]]
    result = combined(detections(boxes, [1, 2], [0.5, 0.8]), (16, 24), CIHP)
    assert result.scores.tolist() == pytest.approx([0.8, 0.5])
    assert result.label_map[0, :16].tolist() == [1] * 5 + [2] * 10 + [0]
    assert result.instance_map[0, :16].tolist() == [2] * 5 + [1] * 10 + [0]
    assert result.person_maps[1, 0, :11].tolist() == [1] * 10 + [0]  # person maps keep covered pixels


def test_people_below_the_threshold_are_not_painted():
    result = combined(detections([[0, 0, 8, 8], [8, 8, 16, 16]], [1, 2], [0.3, 0.29]), (16, 24), CIHP, min_score=0.3)
    assert result.label_map.unique().tolist() == [0, 1]
    assert result.instance_map.unique().tolist() == [0, 1]
    assert result.person_maps[1].any()


def test_confident_global_map_fills_pixels_outside_people():
    labels = torch.zeros(4, 6)
    labels[:, 3:] = 3
    confident, doubtful = one_hot(labels, 0.71), one_hot(labels, 0.69)
    person = ([[0, 0, 16, 16]], [1], [0.9])
    result = combined(detections(*person, confident), (16, 24), CIHP, instance_semantic_weight=0)
    assert result.label_map[5, :16].tolist() == [1] * 16  # the person wins where both have a label
    assert result.label_map[5, 16:].tolist() == [3] * 8
    result = combined(detections(*person, doubtful), (16, 24), CIHP, instance_semantic_weight=0)
    assert not result.label_map[5, 16:].any()


def test_person_background_keeps_the_global_map():
    semantic = one_hot(torch.full((4, 6), 3), 0.9)
    result = combined(detections([[0, 0, 16, 16]], [0], [0.9], semantic), (16, 24), CIHP)
    assert (result.label_map == 3).all()
    assert not result.instance_map.any()


def test_global_probabilities_change_parts_not_background():
    found = detections([[0, 0, 8, 16]], [1], [0.9], one_hot(torch.full((4, 6), 2)))
    # 0.50 for label 1 against 0.40 for label 2: 0.2 more for label 2 turns it. Lower half: background stays so.
    found.person_probs[0] = torch.tensor([0.0, 0.5, 0.4, 0.1])[:, None, None]
    found.person_probs[0, :, 4:] = torch.tensor([0.5, 0.1, 0.4, 0.0])[:, None, None]
    with_term = combined(found, (16, 24), CIHP, semantic_mode="parsing").person_maps[0]
    without = combined(found, (16, 24), CIHP, semantic_mode="parsing", instance_semantic_weight=0.0).person_maps[0]
    assert with_term[0, 0] == 2 and without[0, 0] == 1
    assert with_term[15, 0] == 0


def test_modes_of_table_6():
    semantic = one_hot(torch.full((4, 6), 3), 0.6)
    found = detections([[0, 0, 8, 16]], [1], [0.9], semantic)

    def labels(mode, gate=0.7):
        return combined(found, (16, 24), CIHP, semantic_mode=mode, semantic_gate=gate).label_map

    assert labels("parsing", 0.5).unique().tolist() == [0, 1]
    assert labels("semseg").unique().tolist() == [3]
    assert labels("combine", 0.5).unique().tolist() == [1, 3]
    with pytest.raises(ValueError, match="semantic_mode must be one of combine, parsing, semseg, got 'both'"):
        labels("both")


def test_without_global_map_or_rescoring():
    found = detections([[0, 0, 8, 8]], [1], [0.64])
    found.iou_scores = None
    result = combined(found, (16, 24), CIHP)
    assert result.scores.tolist() == result.box_scores.tolist() == pytest.approx([0.64])
    assert result.label_map.unique().tolist() == [0, 1]
    with pytest.raises(ValueError, match="needs the global segmentation"):
        combined(found, (16, 24), CIHP, semantic_mode="semseg")


def test_parsing_score_is_the_geometric_mean():
    found = detections([[0, 0, 8, 8]], [1], [0.64])
    found.iou_scores = torch.tensor([0.36])
    assert combined(found, (16, 24), CIHP).scores.tolist() == pytest.approx([0.48])


def test_without_detections_the_global_map_remains():
    semantic = one_hot(torch.full((4, 6), 2), 0.9)
    result = combined(detections([], [], [], semantic), (16, 24), CIHP)
    assert (result.label_map == 2).all() and not result.instance_map.any()
    assert result.person_maps.shape == (0, 16, 24) and result.boxes.shape == (0, 4)


def test_cell_padding_does_not_shift_the_global_map():
    # The network's input has 14 rows; the map's 4 cells cover 16. Row 12 of 14 is in cell 3, at every enlargement.
    semantic = one_hot(torch.tensor([0, 0, 0, 3])[:, None].expand(4, 6))
    result = combined(detections([], [], [], semantic, size=(14, 24)), (140, 24), CIHP, semantic_gate=0.0)
    first = int((result.label_map[:, 0] == 3).nonzero()[0])
    assert first == 120


def test_a_global_map_may_give_its_extent():
    # Input of 47 rows, map of the image's 768: copied as it is, although 47 * (768 / 47) is less than 768 in floats.
    labels = torch.randint(0, K, (768, 24))
    found = detections([], [], [], one_hot(labels), size=(47, 24))
    found.label_probs_size = (47, 24)
    assert torch.equal(combined(found, (768, 24), CIHP, semantic_mode="semseg").label_map.long(), labels)


def test_the_rows_of_table_6_differ_where_they_should():
    """(a) arg-max of the global map; (b) people only; (c) people over the global map, which is gated elsewhere."""
    # Columns: person and global map agree | person 1, global map 3 | person background, confident 3 | uncertain 2.
    person = torch.tensor([1, 1, 1, 1, 0, 0, 0, 0]).expand(8, 8)
    semantic = one_hot(torch.tensor([1, 3, 3, 2]).expand(4, 4), 0.9)
    semantic[:, :, 3] = one_hot(torch.full((4, 1), 2), 0.6)[:, :, 0]
    found = detections([[0, 0, 16, 16]], [1], [0.9], semantic, size=(16, 16))
    found.person_probs[0] = one_hot(person)
    rows = {}
    for mode in ("semseg", "parsing", "combine"):
        result = combined(found, (16, 16), CIHP, semantic_mode=mode)
        rows[mode] = result.label_map[8, [1, 5, 10, 14]].tolist()
        assert result.instance_map[8, [1, 5, 10, 14]].tolist() == [1, 1, 0, 0]  # the same people in every row
    assert rows == {"semseg": [1, 3, 3, 2], "parsing": [1, 1, 0, 0], "combine": [1, 1, 3, 0]}


@pytest.mark.parametrize("iou", [-0.3, -0.0, 0.0])
def test_a_negative_predicted_iou_makes_no_nan(iou):
    found = detections([[0, 0, 8, 8]], [1], [0.64])
    found.iou_scores = torch.tensor([iou])
    assert combined(found, (16, 24), CIHP).scores.tolist() == [0.0]
