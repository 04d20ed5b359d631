"""How like real photographs rendered scenes are, in numbers: python -m rpcnn.data.rendered.statistics REAL MADE …

Prints a table with a column for each data set: people per image, heights of people in the picture, how its edges cut
them, visible classes per person, and for every class its share of the people's pixels and of the people who show it.
"""

import sys
from pathlib import Path

import numpy as np

from rpcnn.data.datasets import open_split
from rpcnn.labels import CIHP


def statistics(dataset, limit: int | None = None) -> dict[str, float]:
    """Measure a data set with CIHP's labels.

    Args:
        dataset: a PeopleDataset.
        limit: use the first so many images; None uses all.

    Returns:
        Numbers by name: means over images or people, or shares in percent.
    """
    counts, heights, tops, bottoms, touching, classes, areas = [], [], [], [], [], [], []
    pixels, shown, luminance, contrast, saturation = np.zeros(20), np.zeros(20), [], [], []
    for index in range(min(len(dataset), limit or len(dataset))):
        sample = dataset.load(index)
        image, maps = sample["image"].numpy().astype(np.float32), sample["person_maps"].numpy()
        height, width = image.shape[1:]
        counts.append(len(maps))
        luminance.append(image.mean())
        contrast.append(image.mean(0).std())
        saturation.append((image.max(0) - image.min(0)).mean())
        boxes = sample["boxes"].numpy()
        touching.append(sum(bool(_overlap(a, b)) for k, a in enumerate(boxes) for b in boxes[:k]))
        for person, (_x1, y1, _x2, y2) in zip(maps, boxes, strict=True):
            inside = np.bincount(person[person < 20], minlength=20)
            inside[0] = 0
            pixels += inside
            shown += inside > 0
            classes.append((inside > 0).sum())
            areas.append(inside.sum() / (height * width))
            heights.append((y2 - y1) / height)
            tops.append(y1 <= 1)
            bottoms.append(y2 >= height - 1)
    counts, heights = np.array(counts), np.array(heights)
    out = {
        "images": len(counts),
        "people per image": counts.mean(),
        **{f"  images with {k} %": 100 * (counts == k).mean() for k in range(1, 5)},
        "  images with 5 or more %": 100 * (counts >= 5).mean(),
        "pairs whose boxes overlap, per image": float(np.mean(touching)),
        "height / picture, mean": heights.mean(),
        **{f"  quantile {q} %": float(np.percentile(heights, q)) for q in (10, 25, 50, 75, 90)},
        "area / picture, mean": float(np.mean(areas)),
        "cut at the top %": 100 * float(np.mean(tops)),
        "cut at the bottom %": 100 * float(np.mean(bottoms)),
        "visible classes per person": float(np.mean(classes)),
        "lightness 0..255": float(np.mean(luminance)),
        "  its deviation in an image": float(np.mean(contrast)),
        "saturation (max − min of rgb)": float(np.mean(saturation)),
    }
    for k in range(1, 20):
        out[f"{CIHP.names[k]}, % of pixels"] = 100 * pixels[k] / pixels.sum()
        out[f"{CIHP.names[k]}, % of people"] = 100 * shown[k] / max(len(classes), 1)
    return out


def _overlap(a, b) -> bool:
    return min(a[2], b[2]) > max(a[0], b[0]) and min(a[3], b[3]) > max(a[1], b[1])


def table(columns: dict[str, dict[str, float]]) -> str:
    """Statistics side by side: a line for each number, a column for each data set."""
    names = list(next(iter(columns.values())))
    lines = [f"{'':38}" + "".join(f"{name[-14:]:>16}" for name in columns)]
    lines += [f"{name:38}" + "".join(f"{column[name]:16.2f}" for column in columns.values()) for name in names]
    return "\n".join(lines)


if __name__ == "__main__":
    print(table({root: statistics(open_split(Path(root), "train", "cihp")) for root in sys.argv[1:]}))
