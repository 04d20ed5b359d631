"""Convert weights of other code: ``python -m rpcnn.convert SOURCE OUT.safetensors``.

If SOURCE is a checkpoint of the authors' released code (CIHP or MHP-v2, saved by training or testing), OUT is a model
of the released variant for rpcnn.predict and rpcnn.evaluate. If SOURCE is an ImageNet ResNet with torchvision's names,
OUT is for --backbone-weights, and --pixels converts between caffe's and torchvision's pixels. If SOURCE is a run folder
or weights of rpcnn, OUT is the same model to give away: half the size, without the folders that its run had. No code in
SOURCE is executed. Missing or unexpected names and wrong shapes are errors.
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
from rpcnn.commands import run, user_errors
from rpcnn.config import Config, load_config
from rpcnn.config.fields import DataConfig, RunConfig
from rpcnn.data.open import label_set
from rpcnn.labels import CIHP, MHP_V2, LabelSet
from rpcnn.model import RPRCNN
from rpcnn.model.boxes import cell_anchors
from rpcnn.model.build import build_model
from rpcnn.model.frozen_norm import FrozenBatchNorm2d
from rpcnn.model.imagenet import imagenet_weights
from rpcnn.model.released import PIXEL_STATISTICS
from rpcnn.model.rp_rcnn import STRIDES
from rpcnn.runtime.checkpoint import is_own, load_weights, replace_file, save_state, save_weights
from rpcnn.runtime.unpickle import read_checkpoint

PRESETS = {CIHP.num_classes: "released", MHP_V2.num_classes: "released_mhpv2"}

# Our modules and the corresponding released ones. The released FPN numbers its levels from P4 down and names P5 apart;
# its non-local block uses the symbols of the formula.
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
    """A converted released checkpoint."""

    model: RPRCNN
    config: Config
    label_set: LabelSet
    names: dict[str, str]  # our name to the released name of every tensor
    dropped: list[str]  # names of the constants in the checkpoint, which are equal to ours


def convert_released(state: dict[str, Tensor], second_fold: bool = False) -> Conversion:
    """Build the released network with the weights of a state dict of the released code.

    Args:
        state: 281 tensors and, optionally, the anchors (training and testing) and the pixel statistics (testing), which
            must be equal to ours. The norms of the backbone are stored as scale and shift with folded statistics and
            are copied unchanged.
        second_fold: multiply the scales of the norms by 1 / sqrt(1 + 1e-5). The released code does so at test time: it
            folds the initial statistics of a new norm (mean 0, variance 1) into the stored scale.

    Raises:
        ValueError: the number of classes is not that of CIHP or MHP-v2; tensors are unexpected, missing, of a wrong
            shape, not finite or not floating-point; anchors or pixel statistics differ from ours. The message names
            the keys.
    """
    bias = state.get("SemSeg.Output.conv_logits.bias")
    classes = CIHP.num_classes if bias is None else bias.numel()  # a missing bias is reported below
    if classes not in PRESETS:
        raise ValueError(
            f"convert: SemSeg.Output.conv_logits.bias must have {' or '.join(map(str, PRESETS))} classes, got {classes}"
        )
    config = load_config(PRESETS[classes])
    with torch.device("meta"):
        model = build_model(config, classes)
    expected = model.state_dict()
    names = {name: _released_name(name) for name in expected}
    constants = _constants(config.model.anchor_sizes)
    _check_state(state, {names[name]: value.shape for name, value in expected.items()}, constants)

    weights = {name: state[released].float().clone() for name, released in names.items()}
    if second_fold:
        for name, module in model.named_modules():
            if isinstance(module, FrozenBatchNorm2d):
                weights[f"{name}.weight"] *= (1 + module.eps) ** -0.5
    model.load_state_dict(weights, assign=True)
    return Conversion(
        model, config, label_set=label_set(config), names=names, dropped=[key for key in constants if key in state]
    )


def _released_name(name: str) -> str:
    module = next(module for module in MODULES if name.startswith(f"{module}."))
    return MODULES[module] + name.removeprefix(module)


def _constants(anchor_sizes: tuple[int, ...]) -> dict[str, Tensor]:
    """Compute the constants that released checkpoints store besides weights.

    These are the pixel statistics as scale and shift, and the anchors of the first cell with inclusive ends. They
    include the anchors of the fifth level, which the released network does not use.
    """
    mean, std = map(torch.tensor, PIXEL_STATISTICS["bgr255"])
    constants = {"Norm.weight": 1 / std, "Norm.bias": -mean / std}
    for level, (size, stride) in enumerate(zip(anchor_sizes, STRIDES, strict=True)):
        constants[f"RPN.anchor_generator.cell_anchors.{level}"] = last_pixels(cell_anchors(size, stride))
    return constants


def _check_state(state: dict[str, Tensor], shapes: dict[str, torch.Size], constants: dict[str, Tensor]) -> None:
    """Raise ValueError unless the state has exactly these names and shapes, finite values and equal constants."""
    constants = {key: value for key, value in constants.items() if key in state}
    shapes = shapes | {key: value.shape for key, value in constants.items()}
    misshapen = [key for key, shape in shapes.items() if key in state and state[key].shape != shape]
    faults = {
        "missing": [key for key in shapes if key not in state],
        "left over": [key for key in state if key not in shapes],
        "of a wrong shape": [f"{key} must be {list(shapes[key])}, got {list(state[key].shape)}" for key in misshapen],
    }
    if not any(faults.values()):
        finite = lambda value: all(end.isfinite() for end in value.aminmax())  # aminmax gives NaN if there is one
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
    """Convert an ImageNet ResNet-18, -50 or -101 with torchvision's names to the state dict of the body of `ResNet`.

    Args:
        state: with or without the classifier (fc.*), which is dropped.
        pixels: "keep", "bgr255-to-rgb" or "rgb-to-bgr255", see `change_pixels`.
        path: of the file, for messages.

    Raises:
        ValueError: tensors are unexpected, missing or of a wrong shape; the message names them.
    """
    name = "resnet50" if "layer1.0.conv3.weight" in state else "resnet18"
    name = "resnet101" if "layer3.22.conv1.weight" in state else name
    body = imagenet_weights(name, 1.0, state=state, path=path)
    surplus = [key for key in state if key not in body and not key.startswith("fc.")]
    if surplus:
        raise ValueError(f"convert: {path} is no {name}; left over: {_shortened(surplus)}")
    if pixels == "keep":
        return body
    return body | change_pixels(body, *pixels.split("-to-"))


def change_pixels(body: dict[str, Tensor], source: str, target: str) -> dict[str, Tensor]:
    """Convert the first layer of a ResNet to another pixel format; returns the changed entries of the state dict.

    The channels are swapped, their scales are folded into the weights, and the difference of the means is folded into
    the running mean of the first norm. Both networks compute the same except at the border of the image, where each
    pads with its own mean color.

    Args:
        body: state dict of the ResNet.
        source, target: keys of `PIXEL_STATISTICS`.
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


def convert_own(source: str, output: pathlib.Path) -> str:
    """Write weights of rpcnn with matrices and filters in float16 and without the paths of their run.

    Vectors stay float32: variances and biases are few and need the range.

    Raises:
        ValueError: not weights of rpcnn, or a weight that float16 does not hold.
    """
    weights = load_weights(source)
    small = {k: v.half() if v.is_floating_point() and v.dim() > 1 else v for k, v in weights.state.items()}
    if wide := [key for key, value in small.items() if not value.isfinite().all()]:
        raise ValueError(f"convert: values beyond float16's range in {_shortened(wide)}")
    config = weights.config
    config.data.root, config.data.options = DataConfig.root, {}
    config.run.output, config.run.resume = RunConfig.output, RunConfig.resume
    output.parent.mkdir(parents=True, exist_ok=True)
    save_state(output, small, config, weights.label_set)
    return f"rpcnn: {len(small)} tensors of a model of {weights.label_set.name}, {output.stat().st_size / 1e6:.1f} MB"


@dataclass
class Arguments:
    """The command line of rpcnn.convert."""

    source: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="SOURCE")]
    """A released checkpoint or an ImageNet ResNet (.pth, .pt or .safetensors), or a run folder or weights of rpcnn."""
    output: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="OUT.safetensors")]
    """The file to write, .safetensors."""
    report: bool = False
    """Released checkpoints: print every tensor with its released name instead of a table of the modules."""
    second_fold: bool = False
    """Released checkpoints: multiply the norms of the backbone by 1 / sqrt(1 + 1e-5), as the released code does at test
    time; only for exact comparisons with it."""
    pixels: Literal["keep", "bgr255-to-rgb", "rgb-to-bgr255"] = "keep"
    """ImageNet ResNets: convert the first layer from caffe's pixels (BGR in 0..255 minus a mean, for the preset
    released) to torchvision's (RGB in 0..1, normalized, for all others), or the other way."""


def main(arguments: list[str] | None = None) -> None:
    """Run the command."""
    options = tyro.cli(Arguments, args=arguments, prog="rpcnn convert", description=__doc__)
    with user_errors(SafetensorError):
        print(_run(options))


def _run(options: Arguments) -> str:
    """Convert and write; returns the report."""
    output = pathlib.Path(options.output)
    if output.suffix != ".safetensors":
        raise ValueError(f"convert: the file to write must end in .safetensors, got {options.output}")
    if output.resolve() == pathlib.Path(options.source).resolve():
        raise ValueError(f"convert: {options.output} is the source itself")
    if is_own(options.source):
        if options.pixels != "keep" or options.second_fold or options.report:
            raise ValueError("convert: --pixels, --second-fold and --report are not for weights of rpcnn")
        return f"{convert_own(options.source, output)}\nrpcnn: written to {output}"
    state, others = read_checkpoint(options.source)
    if any(key.startswith("Conv_Body.") for key in state):
        if options.pixels != "keep":
            raise ValueError("convert: --pixels is for ImageNet ResNets; a released model reads BGR as it is")
        conversion = convert_released(state, options.second_fold)
        output.parent.mkdir(parents=True, exist_ok=True)
        save_weights(output, conversion.model, config=conversion.config, label_set=conversion.label_set)
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
        return lines + [f"{released:<{width}}{name}  {list(parameters[name].shape)}" for name, released in rows]
    tensors, numbers = {}, {}
    for name, parameter in parameters.items():
        module = next(module for module in MODULES if name.startswith(f"{module}."))
        tensors[module] = tensors.get(module, 0) + 1
        numbers[module] = numbers.get(module, 0) + parameter.numel()
    rows = [(MODULES[module], module, tensors[module], numbers[module]) for module in MODULES]
    lines += [f"{released:<46}{module:<32}{count:>4}{size:>12,}" for released, module, count, size in rows]
    return lines


if __name__ == "__main__":
    run(main)
