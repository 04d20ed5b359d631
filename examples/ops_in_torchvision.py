"""Puts two ops of rpcnn into torchvision's Faster R-CNN, and shows that the detections stay the same.

    python examples/ops_in_torchvision.py

`MultiScaleRoIAlign`, a loop over the levels of the pyramid, becomes one call of `multilevel_roi_align`; `batched_nms`,
in the proposal network and in the box head, becomes ours. The weights are random: the arithmetic is what is compared.
"""

from unittest import mock

import torch
import torchvision
from torch import nn
from torchvision.models.detection import fasterrcnn_resnet50_fpn

from rpcnn.ops import batched_nms, multilevel_roi_align


class PyramidRoIAlign(nn.Module):
    """Takes the place of torchvision.ops.MultiScaleRoIAlign: the same arguments, the same result."""

    def __init__(self, levels: list[str], output_size: int | tuple[int, int], sampling_ratio: int):
        super().__init__()
        self.levels, self.output_size, self.sampling_ratio = levels, output_size, sampling_ratio

    def forward(self, features, boxes, image_shapes):
        maps = [features[level] for level in self.levels]
        longest = max(max(shape) for shape in image_shapes)
        scales = [2.0 ** round(torch.tensor(max(m.shape[-2:]) / longest).log2().item()) for m in maps]
        return multilevel_roi_align(
            maps, boxes, output_size=self.output_size, spatial_scales=scales, sampling_ratio=self.sampling_ratio
        )


@torch.no_grad()
def main():
    torch.manual_seed(0)
    model = fasterrcnn_resnet50_fpn(
        weights=None, weights_backbone=None, num_classes=3, min_size=160, max_size=240, box_score_thresh=0.0
    ).eval()
    images = [torch.rand(3, 160, 240), torch.rand(3, 160, 120)]

    theirs = model(images)
    pooling = model.roi_heads.box_roi_pool
    model.roi_heads.box_roi_pool = PyramidRoIAlign(pooling.featmap_names, pooling.output_size, pooling.sampling_ratio)
    with mock.patch.object(torchvision.ops.boxes, "batched_nms", batched_nms):
        ours = model(images)

    for mine, wanted in zip(ours, theirs, strict=True):
        assert len(mine["boxes"]) > 0
        torch.testing.assert_close(mine["boxes"], wanted["boxes"], rtol=1e-4, atol=1e-2)  # pixels
        torch.testing.assert_close(mine["scores"], wanted["scores"], rtol=1e-4, atol=1e-5)
        assert torch.equal(mine["labels"], wanted["labels"])
    print(f"equal: {[len(found['boxes']) for found in ours]} detections in {len(images)} images")


if __name__ == "__main__":
    main()
