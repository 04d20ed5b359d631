"""The operators of rpcnn. Each has a ``<op>_reference`` in plain PyTorch: its definition, and its fallback."""

# In the order of csrc/register.cpp. python -m rpcnn.info and the benchmarks list the ops in the order of these imports.
# isort: off
from .roi_align import roi_align, roi_align_reference
from .multilevel_roi_align import multilevel_roi_align, multilevel_roi_align_reference, roi_levels
from .nms import batched_nms, batched_nms_reference, nms, nms_padded, nms_padded_reference, nms_reference
from .grid_anchors import grid_anchors, grid_anchors_reference
from .decode_proposals import decode_proposals, decode_proposals_reference
from .match_boxes import match_boxes, match_boxes_reference
from .draw_samples import draw_samples, draw_samples_reference
from .encode_boxes import encode_boxes, encode_boxes_reference
from .upsample_sum import upsample_sum, upsample_sum_reference
from .gse_fuse import gse_fuse, gse_fuse_reference
from .group_norm import group_norm, group_norm_reference
from .downsample_add import downsample_add, downsample_add_reference
from .parsing_miou import parsing_miou, parsing_miou_reference
from .parsing_loss import parsing_loss, parsing_loss_reference
from .paste_parsing import paste_parsing, paste_parsing_reference
from .drop_in import MultiScaleRoIAlign, RoIAlign, patch_torchvision

__all__ = [
    "MultiScaleRoIAlign",
    "RoIAlign",
    "batched_nms",
    "batched_nms_reference",
    "decode_proposals",
    "decode_proposals_reference",
    "downsample_add",
    "downsample_add_reference",
    "draw_samples",
    "draw_samples_reference",
    "encode_boxes",
    "encode_boxes_reference",
    "grid_anchors",
    "grid_anchors_reference",
    "group_norm",
    "group_norm_reference",
    "gse_fuse",
    "gse_fuse_reference",
    "match_boxes",
    "match_boxes_reference",
    "multilevel_roi_align",
    "multilevel_roi_align_reference",
    "nms",
    "nms_padded",
    "nms_padded_reference",
    "nms_reference",
    "parsing_loss",
    "parsing_loss_reference",
    "parsing_miou",
    "parsing_miou_reference",
    "paste_parsing",
    "paste_parsing_reference",
    "patch_torchvision",
    "roi_align",
    "roi_align_reference",
    "roi_levels",
    "upsample_sum",
    "upsample_sum_reference",
]
