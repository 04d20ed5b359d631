"""Build the network from a configuration. The modules themselves do not know the configuration."""

import functools
import inspect
import typing
from collections.abc import Callable
from typing import Any

from torch import nn

from rpcnn.box_convention import EDGES, PIXELS
from rpcnn.config import Config, check_keys, typed
from rpcnn.data.open import label_set
from rpcnn.variant import PAPER

from .backbones import make_backbone
from .box_head import BoxHead
from .fpn import FPN
from .fuse import fuse
from .gse_fpn import GSEFPN
from .parsing_head import ParsingHead
from .parsing_targets import crop_parsing
from .prsn import PRSN
from .released import PerBatchRPN, VariantRPRCNN, crop_parsing_rounded
from .rp_rcnn import RPRCNN, STRIDES
from .rpn import RPN

PARTS = ["fpn", "gse", "rpn", "box_head", "parsing_head", "prsn"]
Part = typing.TypeVar("Part")


def _make(further: dict, name: str, part: Callable[..., Part], *arguments: Any, **keywords: Any) -> Part:
    """Construct the part `name` with these arguments and those that `further` holds for it."""
    hints = typing.get_type_hints(part.__init__)
    taken = inspect.signature(part).bind_partial(*arguments, **keywords).arguments
    free = [argument for argument in inspect.signature(part).parameters if argument not in taken]
    given = further.get(name, {})
    if not isinstance(given, dict):
        raise ValueError(f"model.parts.{name}: must be a table, got {given!r}")
    check_keys(given, free, f"model.parts.{name}")
    typed_values = {key: typed(value, hints[key], f"model.parts.{name}.{key}") for key, value in given.items()}
    return part(*arguments, **keywords, **typed_values)


def build_model(config: Config, num_classes: int | None = None, backbone: nn.Module | None = None) -> RPRCNN:
    """Build RP R-CNN with randomly initialized heads.

    Args:
        config: only its groups model, loss, sampling, inference and its variant are used.
        num_classes: number of labels, background included; None takes that of the data set.
        backbone: used instead of the configuration's backbone, see `RPRCNN`.

    Raises:
        ValueError: unknown backbone, weights that do not fit it, or an unknown name or a wrong value in model.parts.
    """
    num_classes = num_classes or label_set(config).num_classes
    model, sampling, inference, variant = config.model, config.sampling, config.inference, config.variant
    boxes = PIXELS if variant.inclusive_boxes else EDGES
    levels = variant.pyramid_levels
    check_keys(model.parts, PARTS, "model.parts")
    make = functools.partial(_make, model.parts)
    if backbone is None:
        backbone = make_backbone(
            model.backbone,
            weights=model.backbone_weights,
            norm=model.backbone_norm,
            freeze_at=model.freeze_at,
            width=model.backbone_width,
            stride_in_1x1=variant.stride_in_1x1,
        )
    channels: Any = backbone.channels  # of what modules hold, only parameters and submodules have a type
    fpn = make("fpn", FPN, channels, model.fpn_channels, num_groups=model.num_groups)
    gse = None
    if model.gse:
        gse = make(
            "gse",
            GSEFPN,
            model.fpn_channels,
            num_classes,
            num_groups=model.num_groups,
            levels=levels,
            embedding=variant.gse_embedding,
        )
    rpn = make(
        "rpn",
        PerBatchRPN if variant.rpn_top_per_batch else RPN,
        model.fpn_channels,
        strides=STRIDES[:levels],
        anchor_sizes=model.anchor_sizes[:levels],
        top_train=sampling.rpn_top_train,
        top_test=inference.rpn_top_test,
        ignore_border_anchors=sampling.rpn_ignore_border,
        boxes=boxes,
    )
    box_head = make(
        "box_head",
        BoxHead,
        model.fpn_channels,
        strides=STRIDES[:levels],
        hidden=model.box_channels,
        canonical_size=model.canonical_size,
        samples=sampling.box_samples,
        min_score=inference.min_box_score,
        nms_threshold=inference.nms_threshold,
        max_detections=inference.max_detections,
        aligned=variant.aligned,
        boxes=boxes,
    )
    parsing_head = make(
        "parsing_head",
        ParsingHead,
        model.fpn_channels,
        model.parsing_channels,
        num_classes,
        resolution=model.parsing_resolution,
        output_size=model.parsing_output,
        samples=sampling.parsing_samples,
        num_groups=model.num_groups,
        aligned=variant.aligned,
        boxes=boxes,
        crop=crop_parsing_rounded if variant.parsing_crop == "rounded" else crop_parsing,
    )
    prsn = None
    if model.prsn:
        prsn = make(
            "prsn",
            PRSN,
            model.parsing_channels,
            num_classes,
            input=variant.prsn_input,
            second_stride=variant.prsn_stride,
        )
    network = RPRCNN if variant == PAPER else functools.partial(VariantRPRCNN, variant=variant)
    return fuse(
        network(
            backbone=backbone,
            fpn=fpn,
            rpn=rpn,
            box_head=box_head,
            parsing_head=parsing_head,
            gse=gse,
            prsn=prsn,
            loss_weights={
                "parsing": config.loss.lambda_parsing,
                "semantic": config.loss.lambda_semantic,
                "rescoring": config.loss.lambda_rescoring,
            },
        )
    )


RPRCNN.from_config = staticmethod(build_model)  # attached here because the network does not know the configuration
