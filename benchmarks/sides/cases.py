"""The cases of peers.py and their inputs, made from a seed with numpy alone, so that every side gets the same bytes."""

from collections.abc import Callable, Iterator

import numpy as np

HEIGHT, WIDTH = 800, 1216
CHANNELS, MAP = 256, (HEIGHT // 4, WIDTH // 4)
# Corners are whole pixels, so that float32 holds every area and no library rounds an IoU to the other side; and no IoU
# of whole pixels equals these thresholds, which the libraries treat differently.
RPN, DETECTIONS = 0.70003, 0.50003


def corners(center: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Boxes float32 [N, 4] with corners on whole pixels, at least one pixel wide and high."""
    low = np.round(center - size / 2)
    return np.concatenate([low, low + np.maximum(np.round(size), 1)], 1).astype(np.float32)


def distinct_scores(count: int, rng: np.random.Generator) -> np.ndarray:
    """Scores float32 [N] in 0..1, no two equal, since libraries order equal ones differently."""
    return ((rng.permutation(count) + 1) / (count + 1)).astype(np.float32)


def random_boxes(count: int, scale: int = 1) -> dict:
    """Boxes of 20 to 320 pixels anywhere in an image `scale` times as wide and high as others."""
    rng = np.random.default_rng(0)
    place = scale * rng.random((count, 2)) * (WIDTH, HEIGHT)
    boxes = corners(place, 20 + 300 * rng.random((count, 2)))
    return {"boxes": boxes, "scores": distinct_scores(count, rng), "threshold": np.array(RPN)}


def crowd(count: int) -> dict:
    """Boxes of 30 people, one behind another in three groups: proposals around each of them."""
    rng = np.random.default_rng(1)
    groups = rng.random((3, 2)) * (WIDTH, HEIGHT)
    person = rng.integers(0, 30, count)
    place = groups[np.arange(30) % 3] + rng.normal(0, 60, (30, 2))
    height = 150 + 200 * rng.random(30)
    center = place[person] + rng.normal(0, 12, (count, 2))
    size = (height[:, None] * (0.4, 1))[person] * rng.uniform(0.8, 1.25, (count, 2))
    return {"boxes": corners(center, size), "scores": distinct_scores(count, rng), "threshold": np.array(DETECTIONS)}


def classes(count: int, of: int) -> dict:
    """Random boxes, the same number in every class."""
    made = random_boxes(count)
    labels = np.random.default_rng(2).permutation(np.arange(count) % of)
    return made | {"classes": labels, "threshold": np.array(DETECTIONS)}


def rois(count: int, size: int) -> dict:
    """Person-shaped boxes in a map of two images, for RoIAlign with cells size × size."""
    rng = np.random.default_rng(3)
    height = 60 + 400 * rng.random((count, 1))
    extent = np.concatenate([height * rng.uniform(0.3, 0.7, (count, 1)), height], 1)
    corner = rng.random((count, 2)) * ((WIDTH, HEIGHT) - extent)
    return {
        "feature": rng.standard_normal((2, CHANNELS, *MAP), np.float32),
        "boxes": np.concatenate([corner, corner + extent], 1).astype(np.float32),
        "image": np.arange(count) * 2 // count,
        "size": np.array(size),
    }


def people(images: int, predictions: int) -> dict:
    """True boxes as in CIHP, 3.4 an image, and predictions of which most are near one; images in order."""
    rng = np.random.default_rng(4)
    true_image = np.repeat(np.arange(images), 1 + rng.poisson(2.4, images))
    true = corners(
        rng.random((len(true_image), 2)) * (500, 350), rng.uniform((30, 60), (200, 330), (len(true_image), 2))
    )
    first = np.searchsorted(true_image, np.arange(images + 1))
    image = np.repeat(np.arange(images), predictions)
    near = true[rng.integers(first[image], first[image + 1])].astype(float)
    size = near[:, 2:] - near[:, :2]
    center = (near[:, :2] + near[:, 2:]) / 2 + rng.normal(0, 0.1, size.shape) * size
    return {
        "true_boxes": true,
        "true_image": true_image,
        "boxes": corners(center, size * rng.uniform(0.8, 1.25, size.shape)),
        "image": image,
        "scores": distinct_scores(len(image), rng),
        "images": np.array(images),
    }


CASES: dict[str, Callable[[], dict]] = {
    **{f"nms, {n:,} random boxes": lambda n=n: random_boxes(n) for n in (100, 1000, 2000, 12_000)},
    f"nms, 50,000 random boxes in {8 * WIDTH}×{8 * HEIGHT}": lambda: random_boxes(50_000, 8),
    **{f"nms, crowd, {n:,} boxes": lambda n=n: crowd(n) for n in (1000, 12_000, 50_000)},
    "batched_nms, 80 classes, 12,000 boxes": lambda: classes(12_000, 80),
    "roi_align, 512 RoIs 7×7": lambda: rois(512, 7),
    "roi_align, 32 RoIs 32×32": lambda: rois(32, 32),
    "ap_bbox, 500 images of 20 boxes": lambda: people(500, 20),
}


def matches(case: str) -> Iterator[tuple[str, str, str]]:
    """Yield what is compared in a case: our function, the peer and the peer's function."""
    match case.split(",")[0]:
        case "nms":
            yield "nms", "powerboxes", "rtree_nms"
            yield "nms", "lsnms", "nms"
            if "50,000 random" not in case:  # the others compare all pairs, which takes them half a minute there
                for peer in ("powerboxes", "onnxruntime", "openvino", "ipex"):
                    yield "nms", peer, "nms"
        case "batched_nms":
            for peer in ("lsnms", "onnxruntime", "openvino"):
                yield "batched_nms", peer, "batched_nms"
        case "roi_align":
            for ours in ("roi_align", "roi_align_channels_last"):
                yield ours, "onnxruntime", "roi_align"
                yield ours, "openvino", "roi_align"
                yield ours, "ipex", ours
        case "ap_bbox":
            for peer in ("pycocotools", "faster_coco_eval", "hotcoco"):
                yield "ap_bbox", peer, "ap_bbox"
                yield "ap_bbox", peer, "ap_bbox_loaded"
