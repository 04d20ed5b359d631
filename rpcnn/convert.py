"""Converts other people's weights: ``python -m rpcnn.convert SOURCE OUT.safetensors``.

SOURCE is a checkpoint of the authors' released code (CIHP or MHP-v2, as training or as testing writes it): OUT is then
a model of the released variant for rpcnn.predict and rpcnn.evaluate. Or it is an ImageNet ResNet under torchvision's
names: OUT is then for --backbone-weights, and --pixels makes one that reads caffe's pixels read torchvision's, or the
other way round. Nothing that SOURCE names is run; a name too many, one missing or a wrong shape is an error.
"""

import pathlib
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
import tyro
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from rpcnn.box_convention import last_pixels
from rpcnn.commands import user_errors
from rpcnn.config import Config, load_config
from rpcnn.data.open import label_set
from rpcnn.labels import CIHP, MHP_V2, LabelSet
from rpcnn.model import RPRCNN
from rpcnn.model.boxes import cell_anchors
from rpcnn.model.build import build_model
from rpcnn.model.frozen_norm import FrozenBatchNorm2d
from rpcnn.model.imagenet import imagenet_weights
from rpcnn.model.released import PIXEL_STATISTICS
from rpcnn.model.rp_rcnn import STRIDES
from rpcnn.runtime.checkpoint import replace_file, save_weights
from rpcnn.runtime.unpickle import read_checkpoint

PRESETS = {CIHP.num_classes: "released", MHP_V2.num_classes: "released_mhpv2"}

# Our modules and the released ones of the same weights. The released pyramid counts down from P4, its top apart, and
# its non-local block has the names of the formula.
MODULES = {
    "backbone.body": "Conv_Body",
    "fpn.lateral.0": "Conv_Body_FPN.fpn_in.2",
    "fpn.lateral.1": "Conv_Body_FPN.fpn_in.1",
    "fpn.lateral.2": "Conv_Body_FPN.fpn_in.0",
    "fpn.lateral.3": "Conv_Body_FPN.p5_in",
    "fpn.output.0": "Conv_Body_FPN.fpn_out.2",
    "fpn.output.1": "Conv_Body_FPN.fpn_out.1",
    "fpn.output.2": "Conv_Body_FPN.fpn_out.0",
    "fpn.output.3": "Conv_Body_FPN.p5_out",
    "gse.lateral": "SemSeg.Head.lateral_convs",
    "gse.convs": "SemSeg.Head.convs",
    "gse.embedding": "SemSeg.Head.conv_embedding",
    "gse.logits": "SemSeg.Output.conv_logits",
    "rpn.conv": "RPN.head.conv",
    "rpn.objectness": "RPN.head.cls_logits",
    "rpn.deltas": "RPN.head.bbox_pred",
    "box_head.fc6": "Fast_RCNN.Head.fc6",
    "box_head.fc7": "Fast_RCNN.Head.fc7",
    "box_head.classes": "Fast_RCNN.Output.cls_score",
    "box_head.deltas": "Fast_RCNN.Output.bbox_pred",
    "parsing_head.aspp.pooled": "Parsing_RCNN.Head.im_pool.1",
    "parsing_head.aspp.branches": "Parsing_RCNN.Head.asppv3",
    "parsing_head.reduce": "Parsing_RCNN.Head.feat.0",
    "parsing_head.non_local.query": "Parsing_RCNN.Head.feat.1.theta",
    "parsing_head.non_local.key": "Parsing_RCNN.Head.feat.1.phi",
    "parsing_head.non_local.value": "Parsing_RCNN.Head.feat.1.g",
    "parsing_head.non_local.out": "Parsing_RCNN.Head.feat.1.out",
    "parsing_head.non_local.norm": "Parsing_RCNN.Head.feat.1.gn",
    "parsing_head.convs": "Parsing_RCNN.Head.conv_after_asppv3",
    "parsing_head.logits": "Parsing_RCNN.Output.parsing_score_lowres",
    "prsn.conv1": "Parsing_RCNN.ParsingIoU.Head.convx.0.0",
    "prsn.conv2": "Parsing_RCNN.ParsingIoU.Head.convx.1.0",
    "prsn.fc1": "Parsing_RCNN.ParsingIoU.Head.parsingiou_fc1",
    "prsn.fc2": "Parsing_RCNN.ParsingIoU.Head.parsingiou_fc2",
    "prsn.iou": "Parsing_RCNN.ParsingIoU.Output.parsingiou",
}


@dataclass
class Conversion:
    """A released checkpoint in our terms."""

    model: RPRCNN
    config: Config
    label_set: LabelSet
    names: dict[str, str]  # ours to the released one, of every tensor
    dropped: list[str]  # constants of the checkpoint that agree with ours


def convert_released(state: dict[str, Tensor], second_fold: bool = False) -> Conversion:
    """The released network with the weights of a state dict of the released code.

    Args:
        state: 281 tensors and, where they are there, the anchors (training and testing) and the pixel statistics
            (testing), which are compared with ours. The body's norms are scale and shift, statistics folded in; they
            are taken as they are.
        second_fold: multiply the norms' scales by 1 / sqrt(1 + 1e-5), as the released code does when it builds its
            network for testing, where it folds the statistics 0 and 1 of a new norm into the stored scale.

    Raises:
        ValueError: the number of classes is not that of CIHP or MHP-v2; tensors too many, missing, of a wrong shape,
            not finite or no floating-point numbers; anchors or pixel statistics that are not ours. Names the keys.
    """
    bias = state.get("SemSeg.Output.conv_logits.bias")
    classes = CIHP.num_classes if bias is None else bias.numel()  # a missing one is named below
    if classes not in PRESETS:
        raise ValueError(
            f"convert: SemSeg.Output.conv_logits.bias must have {' or '.join(map(str, PRESETS))} classes, got {classes}"
        )
    config = load_config(PRESETS[classes])
    with torch.device("meta"):
        model = build_model(config, classes)
    wanted = model.state_dict()
    names = {ours: _released_name(ours) for ours in wanted}
    constants = _constants(config.model.anchor_sizes)
    _refuse_misfits(state, {names[ours]: value.shape for ours, value in wanted.items()}, constants)

    weights = {ours: state[theirs].float().clone() for ours, theirs in names.items()}
    if second_fold:
        for name, module in model.named_modules():
            if isinstance(module, FrozenBatchNorm2d):
                weights[f"{name}.weight"] *= (1 + module.eps) ** -0.5
    model.load_state_dict(weights, assign=True)
    return Conversion(model, config, label_set(config), names, [key for key in constants if key in state])


def _released_name(ours: str) -> str:
    module = next(module for module in MODULES if ours.startswith(f"{module}."))
    return MODULES[module] + ours.removeprefix(module)


def _constants(anchor_sizes: tuple[int, ...]) -> dict[str, Tensor]:
    """What released checkpoints store besides weights, computed here: the pixel statistics as a scale and a shift, and
    the anchors of the first cell up to their last pixels, of the fifth level, too, which the released network lacks."""
    mean, std = map(torch.tensor, PIXEL_STATISTICS["bgr255"])
    constants = {"Norm.weight": 1 / std, "Norm.bias": -mean / std}
    for level, (size, stride) in enumerate(zip(anchor_sizes, STRIDES, strict=True)):
        constants[f"RPN.anchor_generator.cell_anchors.{level}"] = last_pixels(cell_anchors(size, stride))
    return constants


def _refuse_misfits(state: dict[str, Tensor], shapes: dict[str, torch.Size], constants: dict[str, Tensor]) -> None:
    """Raises ValueError unless the state has exactly these names and shapes, finite numbers and these constants."""
    constants = {key: value for key, value in constants.items() if key in state}
    shapes = shapes | {key: value.shape for key, value in constants.items()}
    misshapen = [key for key, shape in shapes.items() if key in state and state[key].shape != shape]
    faults = {
        "missing": [key for key in shapes if key not in state],
        "left over": [key for key in state if key not in shapes],
        "of a wrong shape": [f"{key} {list(state[key].shape)}, {list(shapes[key])} wanted" for key in misshapen],
    }
    if not any(faults.values()):
        finite = lambda value: all(end.isfinite() for end in value.aminmax())  # a NaN is both; no mask in memory
        close = lambda key, value: torch.allclose(state[key].float(), value, atol=1e-3)
        faults = {
            "no floating-point numbers": [key for key, value in state.items() if not value.is_floating_point()],
            "not finite": [key for key, value in state.items() if not finite(value)],
            "not the network's own constants": [key for key, value in constants.items() if not close(key, value)],
        }
    found = [f"{fault}: {_shortened(keys)}" for fault, keys in faults.items() if keys]
    if found:
        raise ValueError(f"convert: this is not the released network; {'; '.join(found)}")


def _shortened(keys: list[str], most: int = 12) -> str:
    rest = len(keys) - most
    return ", ".join(keys[:most]) + (f" and {rest} more" if rest > 0 else "")


def convert_imagenet(state: dict[str, Tensor], pixels: str = "keep", path: str = "the file") -> dict[str, Tensor]:
    """The body of an ImageNet ResNet-18, -50 or -101 from a state dict under torchvision's names, for `ResNet`.

    Args:
        state: with or without the classifier (fc.*), which is left out.
        pixels: "keep", or what to change: "bgr255-to-rgb" or "rgb-to-bgr255", see `change_pixels`.
        path: of the file, for the messages.

    Raises:
        ValueError: tensors too many, missing or of a wrong shape, named.
    """
    name = "resnet50" if "layer1.0.conv3.weight" in state else "resnet18"
    name = "resnet101" if "layer3.22.conv1.weight" in state else name
    body = imagenet_weights(name, 1.0, state, path)
    surplus = [key for key in state if key not in body and not key.startswith("fc.")]
    if surplus:
        raise ValueError(f"convert: {path} is no {name}; left over: {_shortened(surplus)}")
    if pixels == "keep":
        return body
    return body | change_pixels(body, *pixels.split("-to-"))


def change_pixels(body: dict[str, Tensor], source: str, target: str) -> dict[str, Tensor]:
    """The first layer of a ResNet that reads `source` pixels as one that reads `target`: the entries that change.

    source, target: keys of `PIXEL_STATISTICS`. The channels swap, their scales go into the weights, and what the means
    differ by goes into the first norm's mean. The two compute the same but at the image's border, where both pad with
    their own mean color.
    """
    mean, std = map(torch.tensor, PIXEL_STATISTICS[source])
    new_mean, new_std = map(torch.tensor, PIXEL_STATISTICS[target])
    # A source pixel is (v - mean) / std, a target pixel (v' - new_mean) / new_std; v, unit times v', is in the source's
    # channel order after the swap.
    unit = 255.0 if source == "bgr255" else 1 / 255.0
    weight = body["conv1.weight"].double()
    shift = (unit * new_mean.flip(0) - mean) / std
    constant = (weight.sum(dim=(2, 3)) * shift).sum(dim=1)
    scaled = (weight * (unit * new_std.flip(0) / std)[:, None, None]).flip(1)
    return {
        "conv1.weight": scaled.to(body["conv1.weight"].dtype),
        "bn1.running_mean": (body["bn1.running_mean"].double() - constant).to(body["bn1.running_mean"].dtype),
    }


@dataclass
class Arguments:
    """The command line of rpcnn.convert."""

    source: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="SOURCE")]
    """A released checkpoint or an ImageNet ResNet: .pth, .pt or .safetensors."""
    output: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="OUT.safetensors")]
    """The file to write, .safetensors."""
    report: bool = False
    """Released checkpoints: print every tensor with its released name, not a table of the modules."""
    second_fold: bool = False
    """Released checkpoints: multiply the body's norms by 1 / sqrt(1 + 1e-5), as the released code does at test time;
    only for comparing with it to the last digit."""
    pixels: Literal["keep", "bgr255-to-rgb", "rgb-to-bgr255"] = "keep"
    """ImageNet ResNets: change the first layer from caffe's pixels (BGR in 0..255 less a mean, what the preset released
    reads) to torchvision's (RGB in 0..1, less the mean, over the deviation, what all others read), or the other way."""


def main(arguments: list[str] | None = None) -> None:
    """Runs the command line."""
    options = tyro.cli(Arguments, args=arguments, prog="rpcnn convert", description=__doc__)
    with user_errors(SafetensorError):
        print(_run(options))


def _run(options: Arguments) -> str:
    """Converts and writes; returns the report."""
    output = pathlib.Path(options.output)
    if output.suffix != ".safetensors":
        raise ValueError(f"convert: the file to write must end in .safetensors, got {options.output}")
    if output.resolve() == pathlib.Path(options.source).resolve():
        raise ValueError(f"convert: {options.output} is the source itself")
    state, others = read_checkpoint(options.source)
    if any(key.startswith("Conv_Body.") for key in state):
        if options.pixels != "keep":
            raise ValueError("convert: --pixels is for ImageNet ResNets; a released model reads BGR as it is")
        conversion = convert_released(state, options.second_fold)
        output.parent.mkdir(parents=True, exist_ok=True)
        save_weights(output, conversion.model, conversion.config, conversion.label_set)
        lines = _report(conversion, options.report)
        dropped = ", ".join(conversion.dropped) or "none"
        lines.append(f"constants, equal to ours, dropped: {dropped}")
    elif "conv1.weight" in state and "layer1.0.conv1.weight" in state:
        if options.second_fold or options.report:
            raise ValueError("convert: --second-fold and --report are for released checkpoints, not ImageNet ResNets")
        body = convert_imagenet(state, options.pixels, options.source)
        output.parent.mkdir(parents=True, exist_ok=True)
        replace_file(output, lambda partial: save_file({k: v.clone() for k, v in body.items()}, partial))
        classifier = ", ".join(key for key in state if key not in body) or "none"
        lines = [f"rpcnn: {len(body)} tensors of an ImageNet ResNet, pixels: {options.pixels}"]
        lines.append(f"classifier, dropped: {classifier}")
    else:
        raise ValueError(
            f"convert: {options.source} is neither a released checkpoint (Conv_Body.*) nor an ImageNet ResNet (conv1, "
            f"layer1.*): it holds {_shortened(list(state), 3) or 'nothing'}"
        )
    if others:
        lines.append(f"not read: {', '.join(others)}")
    return "\n".join([*lines, f"rpcnn: written to {output}"])


def _report(conversion: Conversion, every: bool) -> list[str]:
    parameters = dict(conversion.model.named_parameters())
    total = sum(p.numel() for p in parameters.values())
    frozen = sum(p.numel() for p in parameters.values() if not p.requires_grad)
    labels = conversion.label_set
    lines = [
        f"rpcnn: the released network on {labels.name}, {labels.num_classes} classes: {len(parameters)} tensors, "
        f"{total:,} parameters, of which {frozen:,} frozen"
    ]
    if every:
        width = max(map(len, conversion.names.values())) + 2
        rows = conversion.names.items()
        return lines + [f"{theirs:<{width}}{ours}  {list(parameters[ours].shape)}" for ours, theirs in rows]
    tensors, numbers = {}, {}
    for ours, parameter in parameters.items():
        module = next(module for module in MODULES if ours.startswith(f"{module}."))
        tensors[module] = tensors.get(module, 0) + 1
        numbers[module] = numbers.get(module, 0) + parameter.numel()
    rows = [(MODULES[module], module, tensors[module], numbers[module]) for module in MODULES]
    lines += [f"{theirs:<46}{ours:<32}{count:>4}{size:>12,}" for theirs, ours, count, size in rows]
    return lines


if __name__ == "__main__":
    main()
