"""How fast training data come: our loader, torchvision's transforms as its detection reference uses them, the decoders.

    python benchmarks/data_path.py CIHP --output benchmarks/DATA_PATH.md

CIHP is a folder in the data set's layout. All of its training images are read in turns, on one thread as in a loader's
process, resized to the paper's sizes (short side 512 to 864) and flipped half of the time. Every side of a turn draws
the same sizes and flips. Files stay in the system's cache: a slow disk is a limit of its own.

decoders        the JPEG and both label PNGs to arrays: what no loader can do without
ours            `open_split` and `TrainTransform`
torchvision     PIL, `pil_to_tensor`, a map for each person as `tv_tensors.Mask`, `masks_to_boxes`, and transforms v2
loader          `make_train_loader` with worker processes: with what it takes to bring batches to the training process
"""

import argparse
import datetime
import pathlib
import sys
import time

import numpy as np
import torch
from PIL import Image
from torchvision import tv_tensors
from torchvision.ops import masks_to_boxes
from torchvision.transforms import v2

sys.path.insert(0, str(pathlib.Path(__file__).parent))

from measure import seconds

from rpcnn.data.cihp import CIHP
from rpcnn.data.loader import augmentation, make_train_loader
from rpcnn.data.transforms import TrainTransform
from rpcnn.info import processor
from rpcnn.labels import CIHP as LABELS
from rpcnn.selfcheck.times import Times

SHORT_SIDE, LONG_SIDE_MAX = (512, 864), 1400
GPUS, RATE = 8, 12.0
"""Images a second that each of some GPUs is thought to train on."""


def paths(root: pathlib.Path, id: str) -> list[pathlib.Path]:
    """The picture, the label map and the map of people of an image."""
    folder = root / "Training"
    return [folder / "Images" / f"{id}.jpg", *(folder / f"{kind}_ids" / f"{id}.png" for kind in ("Category", "Human"))]


def decode(root: pathlib.Path, id: str) -> list[np.ndarray]:
    """Decode the three files and do nothing with them."""
    picture, *maps = paths(root, id)
    return [np.asarray(Image.open(picture).convert("RGB")), *(np.asarray(Image.open(path)) for path in maps)]


def with_torchvision(root: pathlib.Path, id: str, seed: int) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Load and augment as torchvision's detection reference does, with the labels of each person for its mask."""
    picture, label_path, human_path = paths(root, id)
    image = tv_tensors.Image(v2.functional.pil_to_tensor(Image.open(picture).convert("RGB")))
    labels, human = (torch.from_numpy(np.array(Image.open(path))) for path in (label_path, human_path))
    numbers = human.unique()
    masks = human == numbers[numbers != 0][:, None, None]
    target = {
        "boxes": tv_tensors.BoundingBoxes(masks_to_boxes(masks), format="XYXY", canvas_size=image.shape[-2:]),
        "masks": tv_tensors.Mask(torch.where(masks, labels, 0)),
        "label_map": tv_tensors.Mask(labels),
    }
    transform = TrainTransform(SHORT_SIDE, LONG_SIDE_MAX, flip_prob=0)
    size = transform.size(*image.shape[-2:], augmentation(seed))
    steps = [
        v2.Resize(size, antialias=True),
        v2.RandomHorizontalFlip(float(seed % 2)),
        v2.SanitizeBoundingBoxes(labels_getter=None),
    ]
    return v2.Compose([*steps, v2.ToPureTensor()])(image, target)


def with_ours(dataset: CIHP, index: int, seed: int) -> dict:
    """Load and augment as training does."""
    transform = TrainTransform(SHORT_SIDE, LONG_SIDE_MAX, LABELS, flip_prob=float(seed % 2))
    return transform(dataset[index], augmentation(seed))


def loader_rate(dataset: CIHP, workers: int, batches: int) -> float:
    """Images a second that arrive from `workers` processes in batches of 4, after one batch of each worker."""
    transform = TrainTransform(SHORT_SIDE, LONG_SIDE_MAX, LABELS)
    loader = make_train_loader(dataset, transform, batch_size_global=4, num_workers=workers)
    for _ in range(2 * workers):  # the first ones were waiting
        next(loader)
    start = time.perf_counter()
    for _ in range(batches):
        next(loader)
    return 4 * batches / (time.perf_counter() - start)


def row(title: str, times: Times, images: int) -> str:
    """A line of the table; times are of all images, in microseconds."""
    rate, (slow, fast) = 1e6 * images / times.median, (1e6 * images / time for time in reversed(times.interval))
    return f"| {title} | **{rate:.0f}** | {slow:.0f}–{fast:.0f} | {1e3 / rate:.1f} | {GPUS * RATE / rate:.1f} |"


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=pathlib.Path, metavar="CIHP")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--output", default="")
    options = parser.parse_args()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    dataset = CIHP(options.root, "train")
    ids = dataset.ids
    people = np.mean([len(dataset[i]["person_maps"]) for i in range(len(ids))])
    sides = {
        "decoders alone (Pillow)": lambda turn: [decode(options.root, id) for id in ids],
        "ours": lambda turn: [with_ours(dataset, i, turn + i) for i in range(len(ids))],
        "torchvision's transforms": lambda turn: [
            with_torchvision(options.root, id, turn + i) for i, id in enumerate(ids)
        ],
    }
    samples: dict[str, list[float]] = {title: [] for title in sides}
    for turn in range(-1, options.rounds):
        for title, work in sides.items():
            spent = 1e6 * seconds(lambda work=work, turn=turn: work(turn))
            samples[title] += [spent] if turn >= 0 else []
    times = {title: Times(tuple(found)) for title, found in samples.items()}
    lines = [
        "# How fast training data come",
        "",
        f"`python benchmarks/data_path.py CIHP --rounds {options.rounds}`",
        "",
        f"{datetime.date.today()}, {processor()}, torch {torch.__version__}. {len(ids)} images of CIHP,",
        f"{people:.1f} people each; short sides of {SHORT_SIDE[0]} to {SHORT_SIDE[1]} pixels; one thread,",
        f"{options.rounds} alternating turns.",
        f"*Processes*: how many keep {GPUS} GPUs busy at {RATE:.0f} images a second each.",
        "",
        "| | images a second | 95 % interval | ms an image | processes |",
        "|---|---|---|---|---|",
        *(row(title, found, len(ids)) for title, found in times.items()),
        "",
        f"Worker processes, {threads} processors:",
        "",
        "| processes | images a second |",
        "|---|---|",
        *(f"| {n} | {loader_rate(dataset, n, 4 * options.rounds):.0f} |" for n in range(1, threads + 1)),
    ]
    print("\n".join(lines))
    if options.output:
        pathlib.Path(options.output).write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
