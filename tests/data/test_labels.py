import numpy as np
import pytest

from rpcnn.labels import CIHP, LIP, MHP_V2, PASCAL_PERSON_PART, LabelSet, voc_palette


@pytest.mark.parametrize(
    ("labels", "count", "pairs"), [(CIHP, 20, 3), (MHP_V2, 59, 8), (LIP, 20, 3), (PASCAL_PERSON_PART, 7, 0)]
)
def test_each_set_has_its_published_size(labels, count, pairs):
    assert labels.num_classes == count == len(set(labels.names)) == len(set(labels.palette))
    assert len(labels.pairs) == pairs
    assert labels.names[0] == "Background" and labels.palette[0] == (0, 0, 0)


@pytest.mark.parametrize("labels", [CIHP, MHP_V2, LIP])
def test_pairs_are_exactly_the_left_and_right_names(labels):
    by_name = {name: i for i, name in enumerate(labels.names)}
    expected = {(i, by_name[n.replace("Left", "Right")]) for n, i in by_name.items() if n.startswith("Left")}
    assert set(labels.pairs) == expected


def test_palette_is_the_pascal_voc_color_map():
    known = {
        1: (128, 0, 0),
        2: (0, 128, 0),
        3: (128, 128, 0),
        7: (128, 128, 128),
        8: (64, 0, 0),
        20: (0, 64, 128),
    }
    palette = voc_palette(256)
    assert {i: palette[i] for i in known} == known
    assert palette[255] == (224, 224, 192)
    assert len(set(palette)) == 256


def test_flip_table_swaps_pairs_and_nothing_else():
    table = CIHP.flip_table()
    assert table.dtype == np.uint8 and table.shape == (256,)
    changed = np.flatnonzero(table != np.arange(256))
    assert changed.tolist() == [14, 15, 16, 17, 18, 19]
    assert table[14] == 15 and table[19] == 18 and table[255] == 255
    assert np.array_equal(table[table], np.arange(256))


def test_invalid_pairs_and_palettes_raise():
    with pytest.raises(ValueError, match="pairs"):
        LabelSet("bad", ("Background", "A", "B"), pairs=((1, 3),))
    with pytest.raises(ValueError, match="pairs"):
        LabelSet("bad", ("Background", "A", "B"), pairs=((1, 2), (2, 1)))
    with pytest.raises(ValueError, match="palette"):
        LabelSet("bad", ("Background", "A"), palette=((0, 0, 0),))
