"""Runs torchvision's Faster R-CNN on the ops of rpcnn, and shows that the detections stay the same.

    python examples/ops_in_torchvision.py

`patch_torchvision` replaces roi_align, nms and batched_nms wherever torchvision calls them; one of its models can also
be given `rpcnn.ops.MultiScaleRoIAlign` as its pooling. The weights are random: the arithmetic is what is compared.
"""

import torch
from torchvision.models.detection import fasterrcnn_resnet50_fpn

from rpcnn.ops import MultiScaleRoIAlign, patch_torchvision


def check(ours, theirs):
    for mine, wanted in zip(ours, theirs, strict=True):
        assert len(mine["boxes"]) > 0
        torch.testing.assert_close(mine["boxes"], wanted["boxes"], rtol=1e-4, atol=1e-2)  # pixels
        torch.testing.assert_close(mine["scores"], wanted["scores"], rtol=1e-4, atol=1e-5)
        assert torch.equal(mine["labels"], wanted["labels"])


@torch.no_grad()
def main():
    torch.manual_seed(0)
    model = fasterrcnn_resnet50_fpn(
        weights=None, weights_backbone=None, num_classes=3, min_size=160, max_size=240, box_score_thresh=0.0
    ).eval()
    images = [torch.rand(3, 160, 240), torch.rand(3, 160, 120)]
    theirs = model(images)

    with patch_torchvision():  # or: patch = patch_torchvision(); …; patch.close()
        check(model(images), theirs)

    pooling = model.roi_heads.box_roi_pool
    model.roi_heads.box_roi_pool = MultiScaleRoIAlign(
        pooling.featmap_names, pooling.output_size, pooling.sampling_ratio
    )
    ours = model(images)
    check(ours, theirs)
    print(f"equal: {[len(found['boxes']) for found in ours]} detections in {len(images)} images")


if __name__ == "__main__":
    main()
