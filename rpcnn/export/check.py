"""How far an exported model agrees with the model that it was made of, on pictures."""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from rpcnn.inference.pipeline import Pipeline
from rpcnn.model import Detections
from rpcnn.pictures import Picture, load_picture

from .exported import ExportedModel

COLUMNS = ("people", "found", "boxes", "scores", "maps", "semantic", "labels", "instances")
"""People of the original and of the exported model; largest differences of boxes in pixels, of parsing scores, and of
probabilities of the people's and of the global maps; pixels whose label or instance differs, in percent."""


def compare(original: Pipeline, exported: ExportedModel, pictures: Iterable[Picture]) -> Iterator[tuple[float, ...]]:
    """Yield a row of COLUMNS for each picture. Where the numbers of people differ, the best of both are compared."""
    for picture in pictures:
        image = torch.from_numpy(load_picture(picture)).permute(2, 0, 1)
        want, got = original.detect(image), exported.detect(image)
        results = [original.finish(detections, image) for detections in (want, got)]
        differ = [
            100 * float((a != b).double().mean())
            for a, b in zip(*((r.label_map, r.instance_map.int()) for r in results), strict=True)
        ]
        yield len(want.boxes), len(got.boxes), *_differences(want, got), *differ


def _differences(want: Detections, got: Detections) -> list[float]:
    both = min(len(want.boxes), len(got.boxes))
    pairs: list[tuple[Tensor | None, Tensor | None]] = [
        (want.boxes[:both], got.boxes[:both]),
        (want.scores[:both], got.scores[:both]),
        (want.person_probs[:both], got.person_probs[:both]),
        (want.label_probs, got.label_probs),
    ]
    return [0.0 if a is None or b is None or not a.numel() else float((a - b).abs().max()) for a, b in pairs]


def as_table(names: list[str], rows: list[tuple[float, ...]]) -> str:
    """The rows as a table of text, with the largest differences last."""
    width = max(map(len, [*names, "largest"]))
    worst = (sum(r[0] for r in rows), sum(r[1] for r in rows), *(max(r[i] for r in rows) for i in range(2, 8)))
    lines = [f"{'':<{width}}" + "".join(f"{column:>11}" for column in COLUMNS)]
    for name, row in zip([*names, "largest"], [*rows, worst], strict=True):
        shown = [f"{row[0]:.0f}", f"{row[1]:.0f}", *(f"{value:.1e}" for value in row[2:6])]
        shown += [f"{value:.3f} %" for value in row[6:]]
        lines.append(f"{name:<{width}}" + "".join(f"{value:>11}" for value in shown))
    return "\n".join(lines)
