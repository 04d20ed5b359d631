"""The released code's checkpoints (names and shapes) and its modules' computation, in plain PyTorch.

Written from the checkpoint's names, independently of rpcnn.model: if both agree on random weights, every weight was
loaded to the right place.
"""

import csv
import pathlib

import torch
import torch.nn.functional as F
from torch import Tensor

ANCHORS = (  # x1 y1 x2 y2 of the first cell by level and ratio; x2 and y2 are inclusive
    ((-22, -10, 25, 13), (-14, -14, 17, 17), (-10, -22, 13, 25)),
    ((-40, -20, 47, 27), (-28, -28, 35, 35), (-20, -44, 27, 51)),
    ((-84, -40, 99, 55), (-56, -56, 71, 71), (-36, -80, 51, 95)),
    ((-164, -72, 195, 103), (-112, -112, 143, 143), (-76, -168, 107, 199)),
    ((-332, -152, 395, 215), (-224, -224, 287, 287), (-148, -328, 211, 391)),
)


def released_shapes(test: bool = False, classes: int = 20) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a training or a test checkpoint."""
    with (pathlib.Path(__file__).parent / "released_keys.tsv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    # Channels that depend on the number of classes: the logits, and the input of the re-scoring network (512 + logits).
    change = {20: classes, 532: 512 + classes}
    return {
        row["key"]: tuple(change.get(int(side), int(side)) for side in row["shape"].split("x"))
        for row in rows
        if test or row["kind"] != "test"
    }


def released_state(test: bool = False) -> dict[str, Tensor]:
    """A random state dict with those names, scaled to keep activations near 1; constants have their real values."""
    state = {}
    for key, shape in released_shapes(test).items():
        if "cell_anchors" in key:
            state[key] = torch.tensor(ANCHORS[int(key[-1])], dtype=torch.float32)
        elif len(shape) == 1:
            state[key] = torch.rand(shape) + 0.5 if key.endswith("weight") else 0.2 * torch.randn(shape)
        else:
            state[key] = torch.randn(shape) / torch.Size(shape[1:]).numel() ** 0.5
    if test:
        state["Norm.weight"], state["Norm.bias"] = torch.ones(3), -torch.tensor([102.9801, 115.9465, 122.7717])
    return state


class Released:
    """Modules of the released network as functions of a state dict."""

    def __init__(self, state: dict[str, Tensor]):
        self.state = state

    def conv(self, x: Tensor, name: str, **geometry) -> Tensor:
        weight = self.state[f"{name}.weight"]
        geometry = {"padding": weight.shape[-1] // 2, **geometry}
        return F.conv2d(x, weight, self.state.get(f"{name}.bias"), **geometry)

    def group_norm(self, x: Tensor, name: str) -> Tensor:
        return F.group_norm(x, 32, self.state[f"{name}.weight"], self.state[f"{name}.bias"], 1e-5)

    def conv_gn(self, x: Tensor, name: str, **geometry) -> Tensor:
        return self.group_norm(self.conv(x, f"{name}.0", **geometry), f"{name}.1")

    def linear(self, x: Tensor, name: str) -> Tensor:
        return F.linear(x, self.state[f"{name}.weight"], self.state[f"{name}.bias"])

    def conv_bn(self, x: Tensor, conv: str, norm: str, stride: int = 1) -> Tensor:
        scale, shift = (self.state[f"Conv_Body.{norm}.{part}"][:, None, None] for part in ("weight", "bias"))
        return self.conv(x, f"Conv_Body.{conv}", stride=stride) * scale + shift

    def backbone(self, x: Tensor) -> list[Tensor]:
        x = F.max_pool2d(self.conv_bn(x, "conv1", "bn1", 2).relu(), 3, 2, 1)
        features = []
        for layer, blocks in enumerate((3, 4, 6, 3), start=1):
            for i in range(blocks):
                block, stride = f"layer{layer}.{i}", 2 if layer > 1 and i == 0 else 1
                y = self.conv_bn(x, f"{block}.conv1", f"{block}.bn1", stride).relu()  # the stride is in the first 1x1
                y = self.conv_bn(y, f"{block}.conv2", f"{block}.bn2").relu()
                y = self.conv_bn(y, f"{block}.conv3", f"{block}.bn3")
                if i == 0:
                    x = self.conv_bn(x, f"{block}.downsample.0", f"{block}.downsample.1", stride)
                x = (x + y).relu()
            features.append(x)
        return features

    def fpn(self, features: list[Tensor]) -> list[Tensor]:
        x = self.conv_gn(features[3], "Conv_Body_FPN.p5_in")
        pyramid = [self.conv_gn(x, "Conv_Body_FPN.p5_out")]
        for i, feature in enumerate(features[2::-1]):  # C4, C3, C2
            x = self.conv_gn(feature, f"Conv_Body_FPN.fpn_in.{i}") + F.interpolate(x, scale_factor=2, mode="nearest")
            pyramid.insert(0, self.conv_gn(x, f"Conv_Body_FPN.fpn_out.{i}"))
        return [*pyramid, pyramid[-1][:, :, ::2, ::2]]

    def semantic(self, pyramid: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        size = pyramid[0].shape[-2:]
        x = 0
        for i, level in enumerate(pyramid):
            up = F.interpolate(level, size, mode="bilinear", align_corners=True)
            x = x + self.conv_gn(up, f"SemSeg.Head.lateral_convs.{i}").relu()
        for i in range(4):
            x = self.conv_gn(x, f"SemSeg.Head.convs.{i}").relu()
        added = self.conv_gn(x, "SemSeg.Head.conv_embedding").relu()
        enhanced = [
            level + F.interpolate(added, level.shape[-2:], mode="bilinear", align_corners=False)
            for level in pyramid[:4]
        ]
        return self.conv(x, "SemSeg.Output.conv_logits"), enhanced

    def rpn(self, feature: Tensor) -> tuple[Tensor, Tensor]:
        """RPN output of one level: logits [N, 3, H, W] and deltas [N, 3, 4, H, W]."""
        x = self.conv(feature, "RPN.head.conv").relu()
        return self.conv(x, "RPN.head.cls_logits"), self.conv(x, "RPN.head.bbox_pred").unflatten(1, (3, 4))

    def box_head(self, rois: Tensor) -> tuple[Tensor, Tensor]:
        """RoI features [R, 256, 7, 7] to class logits [R, 2] and deltas of class 1."""
        x = self.linear(rois.reshape(len(rois), -1), "Fast_RCNN.Head.fc6").relu()
        x = self.linear(x, "Fast_RCNN.Head.fc7").relu()
        return self.linear(x, "Fast_RCNN.Output.cls_score"), self.linear(x, "Fast_RCNN.Output.bbox_pred")[:, 4:8]

    def parsing_head(self, rois: Tensor) -> tuple[Tensor, Tensor]:
        """RoI features [R, 256, 32, 32] to the parsing feature and logits [R, K, 128, 128]."""
        head = "Parsing_RCNN.Head"
        parts = [self.conv_gn(F.adaptive_avg_pool2d(rois, 1), f"{head}.im_pool.1").relu().expand_as(rois)]
        parts.append(self.conv_gn(rois, f"{head}.asppv3.0").relu())
        for i, dilation in enumerate((6, 12, 18), start=1):
            parts.append(self.conv_gn(rois, f"{head}.asppv3.{i}", padding=dilation, dilation=dilation).relu())
        x = self.conv_gn(torch.cat(parts, dim=1), f"{head}.feat.0").relu()
        x = x + self.non_local(x, f"{head}.feat.1")
        for i in range(4):
            x = self.conv_gn(x, f"{head}.conv_after_asppv3.{i}").relu()
        output = "Parsing_RCNN.Output.parsing_score_lowres"
        logits = F.conv_transpose2d(x, self.state[f"{output}.weight"], self.state[f"{output}.bias"], 2, 1)
        return x, F.interpolate(logits, scale_factor=2, mode="bilinear", align_corners=False)

    def non_local(self, x: Tensor, name: str) -> Tensor:
        pooled = F.max_pool2d(x, 2)
        theta = self.conv(x, f"{name}.theta").flatten(2)
        phi, g = (self.conv(pooled, f"{name}.{part}").flatten(2) for part in ("phi", "g"))
        attention = (theta.transpose(1, 2) @ phi / theta.shape[1] ** 0.5).softmax(dim=2)  # [R, queries, keys]
        y = (g @ attention.transpose(1, 2)).view_as(x)
        return self.group_norm(self.conv(y, f"{name}.out"), f"{name}.gn")

    def prsn(self, feature: Tensor, logits: Tensor) -> Tensor:
        head = "Parsing_RCNN.ParsingIoU"
        x = torch.cat([feature, F.max_pool2d(logits, 4)], dim=1)
        x = self.conv(x, f"{head}.Head.convx.0.0").relu()
        x = self.conv(x, f"{head}.Head.convx.1.0", stride=2).relu().mean(dim=(2, 3))
        for i in (1, 2):
            x = self.linear(x, f"{head}.Head.parsingiou_fc{i}").relu()
        return self.linear(x, f"{head}.Output.parsingiou")[:, 0]
