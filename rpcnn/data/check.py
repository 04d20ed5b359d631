"""What is wrong with a data folder, and what is in it: every fault by name, and the statistics of people and parts."""

import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tqdm import tqdm

from rpcnn.labels import CIHP as CIHP_LABELS
from rpcnn.labels import IGNORE, MHP_V2, LabelSet

from .cihp import SPLITS
from .folder import IMAGE_SUFFIXES, DataFault, check_size, check_values, read_id_list, read_image, read_labels
from .mhp import LISTS, PERSON_FILE


@dataclass
class Report:
    """Findings on one split.

    `faults` (id, message) are findings for which the reader leaves an image out; `notes` are suspicious but read.
    `pixels` int64 [K] counts labelled pixels per class, over every person's map; `images_with` int64 [K] the images
    that show a class; `people` counts images by their number of people.
    """

    name: str
    labels: LabelSet
    images: int = 0
    faults: list[tuple[str, str]] = field(default_factory=list)
    notes: list[tuple[str, str]] = field(default_factory=list)
    people: Counter = field(default_factory=Counter)
    sizes: list[tuple[int, int]] = field(default_factory=list)
    pixels: np.ndarray = None
    images_with: np.ndarray = None

    def __post_init__(self):
        self.pixels = np.zeros(self.labels.num_classes, np.int64)
        self.images_with = np.zeros(self.labels.num_classes, np.int64)

    def text(self) -> str:
        """The report for people to read: findings first, then people per image and pixels per class."""
        bad = len({name for name, _ in self.faults})
        lines = [f"{self.name}: {self.images} images, {self.images - bad} usable, {bad} left out"]
        for title, findings in (
            ("faults: the image is left out", self.faults),
            ("notes: the image is used", self.notes),
        ):
            lines += [f"\n{title} ({len(findings)})"] if findings else []
            lines += [f"  {name}: {message}" for name, message in findings]
        if self.sizes:
            heights, widths = np.array(self.sizes).T
            lines.append(
                f"\nsizes: width {widths.min()} to {widths.max()}, height {heights.min()} to {heights.max()}, "
                f"{int((heights > widths).sum())} portraits of {len(heights)}"
            )
            total = sum(count * images for count, images in self.people.items())
            lines.append(f"\npeople: {total}, {total / len(heights):.2f} an image")
            most = max(self.people.values())
            for count in range(max(self.people) + 1):
                bar = "#" * round(40 * self.people[count] / most)
                lines.append(f"  {count:3d} {self.people[count]:7d} {bar}".rstrip())
            lines.append("\nclass                              pixels  of people    images")
            on_people = max(int(self.pixels[1:].sum()), 1)
            for k, name in enumerate(self.labels.names):
                share = f"{100 * self.pixels[k] / on_people:9.2f} %" if k else " " * 11
                lines.append(f"  {k:2d} {name:26s} {self.pixels[k]:12d}{share}{self.images_with[k]:10d}")
        return "\n".join(lines)


@dataclass
class _Findings:
    """What one image has."""

    id: str
    faults: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    size: tuple[int, int] | None = None
    people: int = 0
    pixels: np.ndarray | None = None

    def attempt(self, read, *args, **kwargs):
        """The value of `read`, or None after writing down why there is none."""
        try:
            return read(*args, **kwargs)
        except DataFault as fault:
            self.faults.append(str(fault))


def detect_layout(root: Path) -> str:
    """ "cihp" or "mhpv2", by the names of the folders; raises FileNotFoundError if they are neither's."""
    if layout := _layout_of(root):
        return layout
    inner = sorted(path for path in root.iterdir() if path.is_dir() and _layout_of(path)) if root.is_dir() else []
    raise FileNotFoundError(
        f"{root}: holds neither CIHP's Training/Images or Validation/Images nor MHP-v2's train/images or val/images"
        + (f"; {inner[0]} does" if inner else "")
    )


def _layout_of(root: Path) -> str | None:
    if any((root / name / "Images").is_dir() for name in SPLITS.values()):
        return "cihp"
    if any((root / name / "images").is_dir() for name, _ in LISTS.values()):
        return "mhpv2"
    return None


def check_folder(root, split: str = "train", layout: str | None = None) -> Report:
    """Examine every file of a split of CIHP or MHP-v2 and report on all of them.

    Faults are found for: images and maps that are missing, unreadable or truncated, maps of another size than their
    image, labels outside the label set, MHP-v2 people not numbered 1 to N. Noted are: people without any part, pixels
    of a person without a part and parts without a person, files that belong to no image of the list, ids listed twice.

    Raises FileNotFoundError if the folder is not there, ValueError for an unknown split.
    """
    root = Path(root)
    layout = layout or detect_layout(root)
    splits = SPLITS if layout == "cihp" else LISTS
    if split not in splits:
        raise ValueError(f"check_folder: split must be one of {', '.join(splits)}, got {split!r}")
    return _check_cihp(root, split) if layout == "cihp" else _check_mhp(root, split)


def _images_of(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise FileNotFoundError(f"check_folder: no folder {folder}")
    return {path.stem: path for path in sorted(folder.iterdir()) if path.suffix.lower() in IMAGE_SUFFIXES}


def _run(report: Report, ids: list[str] | None, images: dict[str, Path], examine) -> Report:
    """Examine the listed images in several threads and add up what was found."""
    listed = list(dict.fromkeys(ids if ids is not None else images))
    for name, times in Counter(ids or ()).items():
        if times > 1:
            report.notes.append((name, f"listed {times} times"))
    unlisted = [name for name in images if name not in set(listed)]
    if unlisted:
        report.notes.append((unlisted[0], f"and {len(unlisted) - 1} more images are in the folder but not in the list"))
    report.images = len(listed)
    with ThreadPoolExecutor(min(8, (os.cpu_count() or 1) + 2)) as pool:
        examined = tqdm(pool.map(examine, listed), total=len(listed), desc="checking", unit="image", disable=None)
        for found in examined:
            report.faults += [(found.id, message) for message in found.faults]
            report.notes += [(found.id, message) for message in found.notes]
            if not found.faults:
                report.people[found.people] += 1
                report.sizes.append(found.size)
                report.pixels += found.pixels
                report.images_with += found.pixels > 0
    return report


def _orphans(report: Report, folder: Path, stem_of, images: dict[str, Path]) -> None:
    for path in sorted(folder.glob("*.png")) if folder.is_dir() else ():
        if stem_of(path) not in images:
            report.notes.append((path.stem, f"{path}: belongs to no image"))


def _check_cihp(root: Path, split: str) -> Report:
    folder = root / SPLITS[split]
    images = _images_of(folder / "Images")
    report = Report(f"CIHP {split} ({folder})", CIHP_LABELS)
    annotated = split != "test" or (folder / "Category_ids").is_dir()
    for sub in ("Category_ids", "Human_ids"):
        _orphans(report, folder / sub, lambda path: path.stem, images)

    def examine(stem: str) -> _Findings:
        found = _Findings(stem)
        _, found.size = found.attempt(
            read_image, images.get(stem, folder / "Images" / f"{stem}.jpg"), pixels=False
        ) or (
            None,
            None,
        )
        if not annotated:
            found.pixels = _count(np.zeros(found.size or (0, 0), np.uint8), report.labels)
            return found
        maps = []
        for sub in ("Category_ids", "Human_ids"):
            path = folder / sub / f"{stem}.png"
            labels = found.attempt(read_labels, path)
            if labels is not None:
                if found.size:
                    found.attempt(check_size, labels.shape, found.size, path)
                if sub == "Category_ids":
                    found.attempt(check_values, labels, report.labels.num_classes, path)
                maps.append(labels)
        if found.faults:
            return found
        category, human = maps
        labelled = (category > 0) & (category != IGNORE)
        everybody = np.bincount(human.ravel(), minlength=256)
        with_parts = np.bincount(human[category > 0], minlength=256)
        for k in np.flatnonzero(everybody[1:]) + 1:
            if with_parts[k] == 0:
                found.notes.append(f"person {k} has {everybody[k]} pixels and no part: left out")
            found.people += bool(with_parts[k])
        for pixels, message in (
            ((human > 0) & (category == 0) & (with_parts[human] > 0), "pixels of a person without a part"),
            (labelled & (human == 0), "pixels of a part without a person"),
        ):
            if count := int(pixels.sum()):
                found.notes.append(f"{count} {message}")
        found.pixels = _count(category, report.labels)
        return found

    return _run(report, read_id_list(folder / f"{split}_id.txt"), images, examine)


def _check_mhp(root: Path, split: str) -> Report:
    name, id_list = LISTS[split]
    folder = root / name
    images, annotations = _images_of(folder / "images"), folder / "parsing_annos"
    report = Report(f"MHP-v2 {split} ({folder})", MHP_V2)
    people: dict[str, list[tuple[int, int, Path]]] = {}
    for path in sorted(annotations.glob("*.png")) if annotations.is_dir() else ():
        if match := PERSON_FILE.match(path.name):
            people.setdefault(match[1], []).append((int(match[3]), int(match[2]), path))
        else:
            report.notes.append((path.stem, f"{path}: is not named <image>_<NN>_<ii>.png"))
    for stem, files in people.items():
        if stem not in images:
            report.notes.append((stem, f"{files[0][2]}: belongs to no image"))

    def examine(stem: str) -> _Findings:
        found = _Findings(stem)
        path = images.get(stem, folder / "images" / f"{stem}.jpg")
        _, found.size = found.attempt(read_image, path, pixels=False) or (None, None)
        files = sorted(people.get(stem, []))
        if not files and (name != "test" or annotations.is_dir()):
            found.faults.append(f"{path}: has no annotation {stem}_NN_ii.png in parsing_annos")
        numbers, totals = [number for number, _, _ in files], {total for _, total, _ in files}
        if files and (sorted(numbers) != list(range(1, len(files) + 1)) or totals != {len(files)}):
            found.faults.append(f"people must be numbered 1 to N of N, got {[file.name for _, _, file in files]}")
        found.pixels = np.zeros(report.labels.num_classes, np.int64)
        covered, shared = None, 0
        for _, _, file in files:
            labels = found.attempt(read_labels, file, channel=0)
            if labels is None:
                continue
            if found.size:
                found.attempt(check_size, labels.shape, found.size, file)
            found.attempt(check_values, labels, report.labels.num_classes, file)
            if found.faults:
                continue
            found.pixels[1:] += _count(labels, report.labels)[1:]
            if labels.any():
                found.people += 1
            elif len(files) > 1:
                found.notes.append(f"{file.name} has no part: left out")
            shared += 0 if covered is None else int(((labels > 0) & covered).sum())
            covered = labels > 0 if covered is None else covered | (labels > 0)
        if not found.faults:
            found.pixels[0] = found.size[0] * found.size[1] - (0 if covered is None else int(covered.sum()))
        if covered is not None and shared > 0.5 * covered.sum():
            found.notes.append(f"people share {shared} pixels of {int(covered.sum())}: the same person twice?")
        return found

    return _run(report, read_id_list(root / "list" / id_list), images, examine)


def _count(labels: np.ndarray, label_set: LabelSet) -> np.ndarray:
    return np.bincount(labels.ravel(), minlength=256)[: label_set.num_classes].astype(np.int64)
