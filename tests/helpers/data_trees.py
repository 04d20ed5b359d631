"""Small data sets in the official layouts, for the tests of the readers."""

import numpy as np
from PIL import Image


def write_png(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(array, np.uint8)).save(path)


def cihp_maps(height, width, people):
    """Category and human map, uint8 [H, W], of `people` = {human id: (part, x1, y1, x2, y2)}, x2 and y2 exclusive."""
    category, human = np.zeros((height, width), np.uint8), np.zeros((height, width), np.uint8)
    for k, (part, x1, y1, x2, y2) in people.items():
        category[y1:y2, x1:x2], human[y1:y2, x1:x2] = part, k
    return category, human


def write_cihp_image(root, stem, people, height=40, width=60, split="Training"):
    """Write one image of a CIHP tree and its category and human maps; `people` as in `cihp_maps`."""
    folder = root / split
    (folder / "Images").mkdir(parents=True, exist_ok=True)
    colors = np.random.default_rng(int(stem)).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(colors).save(folder / "Images" / f"{stem}.jpg", quality=95)
    category, human = cihp_maps(height, width, people)
    write_png(folder / "Category_ids" / f"{stem}.png", category)
    write_png(folder / "Human_ids" / f"{stem}.png", human)


def write_mhp_image(root, stem, maps, split="train", shape=(40, 60)):
    """Write one image of an MHP-v2 tree; each person's file has three channels, the first holds the labels."""
    folder = root / split
    (folder / "images").mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*shape, 3), 90, np.uint8)).save(folder / "images" / f"{stem}.jpg")
    for i, labels in enumerate(maps, 1):
        channels = np.stack([labels, np.full(shape, 7), np.full(shape, 200)], -1)
        write_png(folder / "parsing_annos" / f"{stem}_{len(maps):02d}_{i:02d}.png", channels)


LABELS_TOML = """
name = "five parts"
names = ["Background", "Head", "Torso", "Left-arm", "Right-arm"]
pairs = [["Left-arm", "Right-arm"]]
colors = { Head = "#ff8000" }
ignore = 9
"""
"""Content of a labels.toml with five classes."""


def write_picture(path, height=40, width=60):
    """Write an image of noise, seeded by its file name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(list(path.stem.encode())).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)


def write_folder_image(root, stem, people, height=40, width=60, split="train", person_map=True):
    """Write one image of a custom folder data set with the labels of LABELS_TOML; `people` as in `cihp_maps`."""
    (root / split).mkdir(parents=True, exist_ok=True)
    (root / "labels.toml").write_text(LABELS_TOML)
    write_picture(root / split / "images" / f"{stem}.jpg", height, width)
    parts, numbers = cihp_maps(height, width, people)
    write_png(root / split / "parts" / f"{stem}.png", parts)
    if person_map:
        write_png(root / split / "people" / f"{stem}.png", numbers)
