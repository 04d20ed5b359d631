"""The label maps of many people of a large picture, each kept at the size of its box."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor


@dataclass
class PersonCrops:
    """Label maps of N people over a picture of H × W pixels; each is 0 outside its window."""

    size: tuple[int, int]
    """(H, W)."""
    corners: list[tuple[int, int]]
    """x and y of the top left pixel of each window."""
    crops: list[Tensor]
    """uint8 [h, w] of each window."""

    @classmethod
    def of(cls, person_maps: Tensor, boxes: Tensor) -> "PersonCrops":
        """Cut person maps [N, H, W] out at the pixels that their boxes [N, 4] x1 y1 x2 y2 touch."""
        height, width = person_maps.shape[1:]
        limits = boxes.new_tensor([width, height, width, height])
        clipped = torch.minimum(boxes.nan_to_num(0).clamp(min=0), limits)
        windows = torch.cat([clipped[:, :2].floor(), clipped[:, 2:].ceil()], 1).int().tolist()
        crops = [
            person[y1 : max(y1, y2), x1 : max(x1, x2)].clone()
            for person, (x1, y1, x2, y2) in zip(person_maps, windows, strict=True)
        ]
        return cls((height, width), [(x1, y1) for x1, y1, *_ in windows], crops)

    def __len__(self) -> int:
        return len(self.crops)

    def __getitem__(self, kept: Tensor) -> "PersonCrops":
        """Select people by their numbers, int64 [M]."""
        numbers = kept.tolist()
        return replace(self, corners=[self.corners[i] for i in numbers], crops=[self.crops[i] for i in numbers])

    def cpu(self) -> "PersonCrops":
        """A copy with all maps on the CPU."""
        return replace(self, crops=[crop.cpu() for crop in self.crops])

    def map(self, person: int) -> Tensor:
        """The map of a person, uint8 [H, W]."""
        (x, y), crop = self.corners[person], self.crops[person]
        whole = crop.new_zeros(self.size)
        whole[y : y + crop.shape[0], x : x + crop.shape[1]] = crop
        return whole

    def stacked(self, device: torch.device) -> Tensor:
        """The maps of all people, uint8 [N, H, W]."""
        maps = torch.zeros(len(self), *self.size, dtype=torch.uint8, device=device)
        for person, (x, y), crop in zip(maps, self.corners, self.crops, strict=True):
            person[y : y + crop.shape[0], x : x + crop.shape[1]] = crop
        return maps


class StackedWhenRead:
    """A field that holds person maps or `PersonCrops`, which become maps [N, H, W] when they are read."""

    def __init__(self, name: str):
        self.name = name

    def __get__(self, result: Any, owner: type) -> Any:
        if result is None:
            return self
        maps = vars(result)[self.name]
        if isinstance(maps, PersonCrops):
            maps = vars(result)[self.name] = maps.stacked(result.scores.device)
        return maps

    def __set__(self, result: Any, maps: Tensor | PersonCrops) -> None:
        vars(result)[self.name] = maps


def remapped(maps: Tensor | PersonCrops, table: Tensor) -> Any:
    """Other labels: table[label] for each, table uint8 [256]."""
    if isinstance(maps, PersonCrops):
        return replace(maps, crops=[table[crop.long()] for crop in maps.crops])
    return torch.stack([table[person.long()] for person in maps]) if len(maps) else maps


def crop_of(maps: Tensor | PersonCrops, person: int) -> tuple[tuple[int, int], Tensor]:
    """A window that holds the map of a person: x and y of its top left pixel, and the map in it, uint8 [h, w]."""
    if isinstance(maps, PersonCrops):
        return maps.corners[person], maps.crops[person]
    return (0, 0), maps[person]


def joined(parts: Sequence[PersonCrops]) -> PersonCrops:
    """All people of several."""
    return PersonCrops(
        parts[0].size, [corner for part in parts for corner in part.corners], [c for part in parts for c in part.crops]
    )
