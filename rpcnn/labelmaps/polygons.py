"""The outlines of a mask as polygons along the edges of its pixels, exact and with holes."""

import numpy as np


def outlines(mask: np.ndarray) -> list[np.ndarray]:
    """Trace the outlines of a mask; filled by the even-odd rule they give the mask again.

    A pixel in row y and column x is the square from (x, y) to (x + 1, y + 1). Pixels that touch at a corner alone
    belong to two polygons. Outlines run around the mask clockwise, as seen with y downwards, and around its holes
    counterclockwise, so that the shoelace formula sum(x1 * y2 - x2 * y1) / 2 is the area, positive for the first and
    negative for the second.

    Args:
        mask: [H, W], true or above 0 where the mask is.

    Returns:
        int64 [n, 2] for each outline: x and y of its corners, n >= 4; the first corner is not repeated.
    """
    inside = np.pad(np.asarray(mask) > 0, 1)
    above_left, above_right, below_left, below_right = (
        inside[:-1, :-1], inside[:-1, 1:], inside[1:, :-1], inside[1:, 1:]
    )  # fmt: skip
    horizontal_left, horizontal_right = above_left != below_left, above_right != below_right  # edges that end here
    vertical_up, vertical_down = above_left != above_right, below_left != below_right
    turns = (horizontal_left != horizontal_right) & (vertical_up != vertical_down)
    crossings = horizontal_left & horizontal_right & vertical_up & vertical_down  # two outlines meet: a corner of each
    y, x = np.nonzero(turns | crossings)
    copies = 1 + crossings[y, x]
    # At a crossing, the first copy has the edge to the left and the second the edge to the right.
    second = np.arange(copies.sum()) - np.repeat(np.cumsum(copies) - copies, copies)
    rising = np.repeat(above_right[y, x], copies)  # the set pixels are above right and below left
    y, x = np.repeat(y, copies), np.repeat(x, copies)
    along_row = _partners(np.lexsort((second, x, y)))
    # The copy with the edge upwards is the first in its column: of a rising crossing the second copy.
    along_column = _partners(np.lexsort((np.where(rising, 1 - second, second), y, x)))
    return [_directed(np.stack([x[ring], y[ring]], 1), below_right) for ring in _rings(along_row, along_column)]


def _partners(order: np.ndarray) -> np.ndarray:
    """Corners in the order of a row or column are the two ends of an edge in turn: the other end of each."""
    partner = np.empty_like(order)
    partner[order[0::2]], partner[order[1::2]] = order[1::2], order[0::2]
    return partner


def _rings(along_row: np.ndarray, along_column: np.ndarray) -> list[list[int]]:
    """Walk from corner to corner, along a row and a column in turn."""
    rows, columns = along_row.tolist(), along_column.tolist()
    seen, rings = bytearray(len(rows)), []
    for start in range(len(rows)):
        if seen[start]:
            continue
        ring, corner = [], start
        while not seen[corner]:
            other = rows[corner]
            seen[corner] = seen[other] = 1
            ring += [corner, other]
            corner = columns[other]
        rings.append(ring)
    return rings


def _directed(ring: np.ndarray, below_right: np.ndarray) -> np.ndarray:
    """The ring in the direction that has the mask to the right of its way, which its first edge, in a row, shows."""
    (x1, y), (x2, _) = ring[:2]
    return ring if (x1 < x2) == below_right[y, min(x1, x2)] else ring[::-1]
