"""Writes made scenes in the official CIHP layout."""

import json
import multiprocessing
import shutil
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from rpcnn.labels import CIHP as CIHP_LABELS
from rpcnn.runtime.processors import usable_processors

SPLITS = (("Training", "train_id.txt"), ("Validation", "val_id.txt"))
FOLDERS = ("Images", "Category_ids", "Human_ids", "Instance_ids")

Make = Callable[[tuple[int, ...], int, int], tuple[np.ndarray, np.ndarray, np.ndarray]]


def write_scenes(
    root,
    make: Make,
    *,
    mark: str,
    settings: dict,
    train: int,
    val: int,
    size: tuple[int, int],
    seed: int,
    workers: int | None = None,
    keep: bool = False,
) -> Path:
    """Make scenes and write them in the official CIHP layout.

    Training/ and Validation/ hold Images/*.jpg (quality 95), Category_ids/*.png, Human_ids/*.png, Instance_ids/*.png
    with a text file of lines "instance category human" for each, and train_id.txt or val_id.txt. Scenes depend on
    (seed, split, number) only: a longer set begins with a shorter one, and training and validation scenes differ. A set
    made before with the same arguments is kept; one made with other arguments, or unfinished, is made again.

    Args:
        root: the folder.
        make: called as make(seed, height, width), must be picklable; returns image uint8 [H, W, 3], label map uint8
            [H, W] with CIHP's labels, and person numbers uint8 [H, W] from 1.
        mark: name of the file in `root` that says how the set was made, such as painted.json.
        settings: what decides the scenes beside train, val, size and seed; JSON values.
        train, val: number of scenes per split.
        size: range of the short side in pixels; the long side is 4/3 of it, and three in five scenes are landscapes.
        seed: seed of all scenes.
        workers: number of processes; None uses one per core, at most 8.
        keep: keep the scenes that were written before with the same settings, size and seed, be the set unfinished or
            of another length, and make only what is missing.

    Returns:
        The folder.

    Raises:
        ValueError: `root` holds something that this function did not write.
    """
    root = Path(root)
    scenes = {**settings, "size": list(size), "seed": seed}
    settings = {**scenes, "train": train, "val": val}
    at = root / mark
    before = json.loads(at.read_text()) if at.exists() else None
    if before == {**settings, "finished": True}:
        return root
    names = [folder for folder, _ in SPLITS]
    own = {at.name, at.with_suffix(".tmp").name, *names} if before is not None else set()
    foreign = sorted(path.name for path in root.iterdir() if path.name not in own) if root.exists() else []
    if foreign:
        verb = at.stem
        raise ValueError(f"{root} holds {foreign[0]}, which was not {verb} here; choose a new or empty folder")
    same = keep and before is not None and all(before.get(key) == value for key, value in scenes.items())
    if not same:
        for folder in names:
            shutil.rmtree(root / folder, ignore_errors=True)
    root.mkdir(parents=True, exist_ok=True)
    at.write_text(json.dumps({**settings, "finished": False}))

    jobs = []
    for split, ((name, ids), count) in enumerate(zip(SPLITS, (train, val), strict=True)):
        folder = root / name
        for sub in FOLDERS:
            (folder / sub).mkdir(parents=True, exist_ok=True)
        stems = [f"{k:07d}" for k in range(1, count + 1)]
        (folder / ids).write_text("".join(f"{stem}\n" for stem in stems))
        for path in [path for sub in FOLDERS for path in (folder / sub).iterdir()]:
            if path.stem not in set(stems):
                path.unlink()  # of a longer set
        jobs += [
            (folder, stem, (seed, split, int(stem))) for stem in stems
            if not (folder / "Instance_ids" / f"{stem}.txt").exists()
        ]  # fmt: skip
    work = partial(_write_scene, make=make, size=tuple(size))
    workers = workers if workers is not None else min(usable_processors(), 8)
    bar = partial(tqdm, total=len(jobs), desc="making scenes", unit="scene", disable=None)
    if workers > 1 and len(jobs) > 8:
        # fork starts fast, and is safe: the workers use numpy and Pillow only, not torch's threads
        method = "fork" if "fork" in multiprocessing.get_all_start_methods() else None
        context = multiprocessing.get_context(method)
        with ProcessPoolExecutor(workers, mp_context=context) as pool:
            for _ in bar(pool.map(work, jobs, chunksize=4)):
                pass
    else:
        for job in bar(jobs):
            work(job)
    unfinished = at.with_suffix(".tmp")
    unfinished.write_text(json.dumps({**settings, "finished": True}))
    unfinished.replace(at)
    return root


def _write_scene(job, make: Make, size: tuple[int, int]) -> None:
    folder, stem, seed = job
    rng = np.random.default_rng((*seed, 0))
    short = int(rng.integers(size[0], size[1] + 1))
    height, width = (short, short * 4 // 3) if rng.random() < 0.6 else (short * 4 // 3, short)
    image, label_map, numbers = make((*seed, 1), height, width)
    Image.fromarray(image).save(folder / "Images" / f"{stem}.jpg", quality=95)
    Image.fromarray(label_map).save(folder / "Category_ids" / f"{stem}.png")
    Image.fromarray(numbers).save(folder / "Human_ids" / f"{stem}.png")
    # official numbering: one instance per person and part
    combined = np.where(numbers > 0, (numbers.astype(int) - 1) * CIHP_LABELS.num_classes + label_map, 0)
    Image.fromarray(combined.astype(np.uint8)).save(folder / "Instance_ids" / f"{stem}.png")
    pairs = ((int(v), int(v) % CIHP_LABELS.num_classes, int(v) // CIHP_LABELS.num_classes + 1)
             for v in np.unique(combined) if v)  # fmt: skip
    # last, since it says that the scene is complete
    text = folder / "Instance_ids" / f"{stem}.txt"
    unfinished = text.with_suffix(".tmp")
    unfinished.write_text("".join(f"{v} {c} {h}\n" for v, c, h in pairs))
    unfinished.replace(text)
