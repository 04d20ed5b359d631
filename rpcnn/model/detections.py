"""The model's output for one image at test, before results are resized to the original image."""

from dataclasses import dataclass

from torch import Tensor


@dataclass
class Detections:
    """n people of one image, best box score first, in pixels of the network's input; K classes."""

    boxes: Tensor
    """float32 [n, 4] x1 y1 x2 y2."""
    box_scores: Tensor
    """float32 [n] in [0, 1]: S_cls."""
    iou_scores: Tensor | None
    """float32 [n]: S_iou of the re-scoring network, in [0, 1] unless clamp_iou is false; None without PRSN."""
    person_probs: Tensor
    """float32 [n, K, output, output] over each box (output 128 in the paper); sums to 1 over K."""
    label_probs: Tensor | None
    """float32 [K, hs, ws]: class probabilities of the whole image, None without GSE-FPN. One pass gives
    ceil(height / 4) rows and ceil(width / 4) columns of 4 x 4 pixels, without padding."""
    image_size: tuple[int, int]
    """(height, width) of the network's input, without padding."""
    label_probs_size: tuple[float, float] | None = None
    """(height, width) in pixels that label_probs covers from the top left corner, at least image_size; None means
    (4 hs, 4 ws)."""

    @property
    def scores(self) -> Tensor:
        """S_parsing = sqrt(S_cls * S_iou), [n] (Sec. 3.5); the box score without a re-scoring network.

        0 if S_iou is negative: the root would be NaN, which score thresholds do not drop.
        """
        if self.iou_scores is None:
            return self.box_scores
        return (self.box_scores * self.iou_scores.clamp(min=0)).sqrt()
