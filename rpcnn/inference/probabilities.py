"""The probabilities that label maps are made of, kept where they are asked for."""

import io
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor


@dataclass
class Probabilities:
    """Class probabilities of N people and of the whole image, at the sizes of the network's maps; K classes."""

    people: Tensor
    """float32 [N, K, h, w]: of each person over its window; sums to 1 over K."""
    windows: Tensor
    """float32 [N, 4] x1 y1 x2 y2 in pixels of the image: where the maps of the people lie."""
    whole: Tensor | None
    """float32 [K, hs, ws]: of the whole image; None without a global segmentation."""
    whole_size: tuple[float, float] | None
    """(height, width) in pixels of the image that `whole` covers from the top left corner: at least the image, whose
    edge the last cells may exceed."""

    def __getitem__(self, kept: Tensor) -> "Probabilities":
        """Select people."""
        return replace(self, people=self.people[kept], windows=self.windows[kept])

    def cpu(self) -> "Probabilities":
        """A copy with all tensors on the CPU."""
        whole = None if self.whole is None else self.whole.cpu()
        return replace(self, people=self.people.cpu(), windows=self.windows.cpu(), whole=whole)

    def remap(self, table: Tensor, num_classes: int) -> "Probabilities":
        """The probabilities of other labels, each the sum over the labels that become it.

        Args:
            table: int64 [K] the new label of each, below `num_classes`.
        """
        people = self.people.new_zeros(len(self.people), num_classes, *self.people.shape[2:])
        people.index_add_(1, table, self.people)
        whole = self.whole
        if whole is not None:
            whole = whole.new_zeros(num_classes, *whole.shape[1:]).index_add_(0, table, whole)
        return replace(self, people=people, whole=whole)

    def npz(self) -> bytes:
        """The arrays people, windows, whole and whole_size as a compressed .npz of NumPy; probabilities in float16.

        Before compression, people take 2 N K h w bytes and the whole image 2 K hs ws.
        """
        half = lambda values: values.detach().to("cpu", torch.float16).numpy()
        arrays = {"people": half(self.people), "windows": self.windows.detach().cpu().numpy()}
        if self.whole is not None:
            arrays |= {"whole": half(self.whole), "whole_size": np.array(self.whole_size, np.float32)}
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **arrays)
        return buffer.getvalue()
