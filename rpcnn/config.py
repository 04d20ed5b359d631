"""Every knob of a run: one dataclass tree, whose defaults are the paper's CIHP run. TOML presets hold what differs.

Precedence: defaults < the preset that a file names as its base < the file < command line. ``load_config`` gives the
resolved tree, ``to_toml`` writes it back.
"""

import dataclasses
import difflib
import json
import pathlib
import tomllib
import types
import typing
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal

import tyro

from rpcnn.labels import CIHP, MHP_V2, LabelSet


def _short(flag: str):
    """A command-line name besides the full one."""
    return tyro.conf.arg(aliases=[flag])


@dataclass
class DataConfig:
    """Which pictures, and how they are resized."""

    dataset: Literal["cihp", "mhpv2", "painted"] = "cihp"
    """cihp and mhpv2 read their official folders as downloaded; painted paints scenes of its own, in CIHP's layout."""
    root: Annotated[str, _short("--data-root")] = "data/CIHP"
    """Folder of the data set (CIHP: holds Training/ and Validation/; MHP-v2: train/ and val/)."""
    train_split: str = "train"
    """Split to train on: train or val."""
    eval_split: str = "val"
    """Split to evaluate on: train or val."""
    short_side_min: int = 512
    """Training: the short side is drawn from short_side_min..short_side_max pixels (Sec. 4.1)."""
    short_side_max: int = 864
    """Training: largest short side."""
    short_sides: tuple[int, ...] = ()
    """Training: one of these in place of the range (released code: 512 640 704 768 800 864); empty: the range."""
    long_side_max: int = 1400
    """Training: the long side never exceeds this (Sec. 4.1)."""
    test_short_side: int = 800
    """Evaluation and prediction: the short side (Sec. 4.1)."""
    test_long_side_max: int = 1333
    """Evaluation and prediction: the long side never exceeds this (released code)."""
    test_resize: Literal["antialias", "opencv"] = "antialias"
    """Evaluation and prediction: antialias as in training; opencv (released code): plain bilinear, sides rounded."""
    flip_probability: float = 0.5
    """Training: how often an image is mirrored, with left and right labels exchanged."""
    workers: int = 4
    """Loader processes per rank; 0 loads in the training process."""
    painted_train: int = 400
    """dataset = painted: scenes to paint for training, when the folder does not hold them yet."""
    painted_val: int = 60
    """dataset = painted: unseen scenes for evaluation."""
    painted_short_side: tuple[int, int] = (192, 256)
    """dataset = painted: range of the short side of a scene in pixels; the long side is 4/3 of it."""
    painted_difficulty: float = 0.5
    """dataset = painted: 0 few people on calm backgrounds … 1 crowds, occlusion, clutter and poor light."""


@dataclass
class ModelConfig:
    """The network. Every field is the argument of the same name of rpcnn.model.RPRCNN."""

    backbone: Literal["resnet18", "resnet50", "resnet101", "mobilenet_v2"] = "resnet50"
    """Body, built by torchvision."""
    backbone_weights: Annotated[str, _short("--backbone-weights")] = ""
    """ImageNet weights of the body (.pth or .safetensors, torchvision's names); empty starts from random ones.
    Weights that read caffe's pixels fit pixel_format = bgr255; rpcnn.convert --pixels makes them fit rgb."""
    backbone_norm: Literal["frozen_bn", "gn", "bn"] = "frozen_bn"
    """frozen_bn: constant statistics, for ImageNet weights (the paper); gn or bn: to train from random weights.
    The statistics of bn are each process's own: with it, several processes do not equal one."""
    backbone_width: float = 1.0
    """Factor on the body's channels; ImageNet weights fit 1 only."""
    freeze_at: int = 2
    """Stages of the body that do not train: 0 none, 1 the stem, 2 the stem and C2 (the paper), … 5 all."""
    stride_in_1x1: bool = False
    """Stride in the first convolution of a bottleneck (released code: true)."""
    fpn_channels: int = 256
    """Width of the pyramid (Sec. 3.3)."""
    num_groups: int = 32
    """Groups of every GroupNorm outside the body."""
    aligned: bool = True
    """RoIAlign with the half-pixel shift (released code: false)."""
    pyramid_levels: int = 5
    """Levels the detector sees: 5 for S2..S6 (Sec. 3.3); the released code has 4."""
    gse: bool = True
    """With the global semantic branch of GSE-FPN; false gives the plain FPN of Parsing R-CNN."""
    gse_convs: int = 4
    """3×3 convolutions of the global semantic feature (Sec. 3.3)."""
    gse_embedding: bool = False
    """Add a further 3×3 block of that feature to the pyramid, not the feature itself (released code: true)."""
    anchor_sizes: tuple[int, ...] = (32, 64, 128, 256, 512)
    """Anchor sides in pixels, one per level."""
    anchor_ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    """Anchor height over width."""
    rpn_top_train: int = 2000
    """Training: proposals per level before suppression and per image after it."""
    rpn_top_test: int = 1000
    """Test: the same."""
    rpn_nms_threshold: float = 0.7
    """IoU above which the weaker proposal goes."""
    rpn_samples: int = 256
    """Anchors per image in the loss."""
    rpn_ignore_border: bool = True
    """Anchors that leave the image take no part in the loss."""
    box_channels: int = 1024
    """Width of the box branch."""
    box_resolution: int = 7
    """RoI features of the box branch, cells a side."""
    box_samples: int = 512
    """RoIs per image that train the box branch (Sec. 4.1)."""
    box_positive_fraction: float = 0.25
    """At most this share of them shows a person."""
    canonical_size: int = 224
    """RoIs of this side in pixels are read from the stride-16 level."""
    parsing_channels: int = 512
    """Width of the parsing branch."""
    parsing_convs: int = 4
    """3×3 convolutions after the non-local block."""
    aspp_channels: int = 256
    """Width of each ASPP branch."""
    aspp_dilations: tuple[int, ...] = (6, 12, 18)
    """Dilations of its 3×3 branches."""
    parsing_resolution: int = 32
    """RoI features of the parsing branch, cells a side (Sec. 3.4)."""
    parsing_output: int = 128
    """Side of the parsing maps (Sec. 3.4)."""
    parsing_samples: int = 16
    """People per image that train the parsing branch (Sec. 4.1)."""
    parsing_chunk: int = 32
    """Test: RoIs parsed at a time; bounds the memory."""
    prsn: bool = True
    """With the parsing re-scoring network (Sec. 3.4)."""
    prsn_channels: int = 128
    """Width of its convolutions."""
    prsn_hidden: int = 256
    """Width of its fully connected layers."""
    prsn_input: Literal["probabilities", "logits"] = "probabilities"
    """What it reads beside the feature (released code: logits)."""
    prsn_stride: int = 1
    """Stride of its second convolution (released code: 2)."""
    rescoring_loss: Literal["mse", "half_positive"] = "mse"
    """half_positive: half the squared error, over people with a true mIoU above 0 (released code)."""
    lambda_parsing: float = 2.0
    """Weight of the parsing loss, λp of Eq. 1."""
    lambda_semantic: float = 2.0
    """Weight of the global segmentation loss, λs of Eq. 1."""
    lambda_rescoring: float = 1.0
    """Weight of the re-scoring loss, λr of Eq. 1."""
    ignore_padding: bool = True
    """The semantic loss passes over padding; false calls it background (released code)."""
    normalise_per_process: bool = False
    """Each process divides losses by its own counts, not by all processes', and pads to its own images, not to the
    largest of the whole batch (released code: true)."""
    score_threshold: float = 0.05
    """Test: boxes below this score are dropped."""
    nms_threshold: float = 0.5
    """Test: IoU above which the weaker box goes."""
    max_detections: int = 100
    """Test: the best boxes per image that are parsed (Sec. 3.5)."""
    pixel_format: Literal["rgb", "bgr255"] = "rgb"
    """What the body reads: rgb in 0..1 less ImageNet's mean, over its deviation; bgr255: BGR in 0..255 less a mean
    (released code)."""
    test_padding: Literal["mean", "black"] = "mean"
    """Test: padding is mean, the colour that training pads with, or black, 0 less the mean (released code)."""
    inclusive_boxes: bool = False
    """Corners are the first and the last pixel, "+1" boxes (released code: true): as such they are clipped, scaled and
    pooled. Coder, IoU, suppression and levels are the same either way: a box [x1, x2] of x2 - x1 + 1 pixels is our
    [x1, x2 + 1]."""
    rpn_top_per_batch: bool = False
    """Training: rpn_top_train counts the proposals of all images of a process together (released code: true)."""
    parsing_crop: Literal["exact", "rounded"] = "exact"
    """Training: parsing targets are sampled inside the RoI, or cropped at rounded corners, the end one pixel short, and
    resized (released code)."""
    clamp_iou: bool = True
    """Test: the re-scoring network's output is clamped to 0..1; false bounds it below only, in the parsing score, where
    the released code gets NaN."""
    crop_semantic: bool = True
    """Test: the padding is cut off the global map before it is resized; false resizes both (released code)."""


@dataclass
class TrainConfig:
    """Optimiser and schedule (Sec. 4.1)."""

    iterations: Annotated[int, _short("--iterations")] = 135_000
    """Optimiser steps."""
    batch_size: Annotated[int, _short("--batch-size")] = 16
    """Images per optimiser step, over all processes and accumulation steps."""
    accumulate: int = 1
    """Split each process's share of a batch into this many forward and backward passes, to save memory."""
    learning_rate: float = 0.02
    """Rate for 16 images per step; the linear rule scales it: rate · batch_size / 16."""
    steps: tuple[int, ...] = (105_000, 125_000)
    """Iterations at which the rate falls to a tenth."""
    decay: Literal["steps", "cosine"] = "steps"
    """steps (the paper); cosine: half a cosine to 0 at the last iteration, better where there are only minutes."""
    warmup_iterations: int = 1000
    """The rate rises linearly over these, from warmup_factor of it."""
    warmup_factor: float = 1e-4
    """Where the warm-up starts."""
    optimizer: Literal["sgd", "adamw"] = "sgd"
    """sgd (the paper); adamw reaches a useful network in far fewer steps where there are only minutes to train."""
    momentum: float = 0.9
    """Momentum of sgd."""
    weight_decay: float = 1e-4
    """On weights; biases and GroupNorm scales have none, and biases learn at twice the rate."""
    clip_gradient_norm: float = 0.0
    """Largest gradient norm; 0 does not clip (the paper's choice)."""


@dataclass
class TestConfig:
    """From detections to people and to one map of the image (Sec. 3.5)."""

    __test__ = False  # the name is the field's, not a test class

    semantic_mode: Literal["combine", "parsing", "semseg"] = "combine"
    """Rows of Table 6: global map and people combined (Fig. 4), people only, global map only."""
    score_threshold: float = 0.3
    """People enter the combined map from this parsing score on (released code: 0.3 CIHP, 0.05 MHP-v2)."""
    semantic_gate: float = 0.7
    """Confidence from which on the global map counts (released code)."""
    instance_semantic_weight: float = 0.2
    """Weight of the global probabilities in each person's own map (released code)."""
    pasting: Literal["exact", "rounded"] = "exact"
    """exact: a person's map is sampled over its box; rounded: with a border of zeros, over the box enlarged for it and
    cut to whole pixels (released code)."""
    skip_empty: bool = False
    """Images without a detection do not count in mIoU and the accuracies (released code: true)."""
    save_predictions: Literal["", "instances", "people", "coco", "cihp", "mhp"] = ""
    """An evaluation also writes its predictions, in a format of docs/formats.md; empty writes none."""
    augment: bool = False
    """Test-time augmentation: every image at several scales and mirrored, the answers averaged (Table 9)."""
    augment_scales: tuple[float, ...] = (0.5, 0.625, 0.75, 0.875, 1.125, 1.25, 1.375, 1.5)
    """Scales besides data.test_short_side, relative to it: of 800, the released 400, 500, 600, 700, 900 … 1200."""
    augment_long_side_max: int = 2000
    """The long side never exceeds this at those scales (released code)."""
    augment_flip: bool = True
    """See the mirror image at every scale, too: 18 passes with the eight scales above."""
    soft_nms: Literal["linear", "gaussian", "off"] = "linear"
    """With augment: how boxes of all passes compete (released code: linear); off is the NMS of a single pass."""
    soft_nms_sigma: float = 0.5
    """With soft_nms = gaussian: scores fall by exp(-IoU² / sigma)."""
    voting_iou: float = 0.9
    """With augment: a box becomes the mean of all that overlap it by this IoU (released code); 0 leaves it alone."""
    pictures: int = 12
    """How many pictures of input, truth and prediction an evaluation writes."""


@dataclass
class RunConfig:
    """Where and how it runs."""

    output: Annotated[str, _short("--output")] = ""
    """Run folder; empty makes runs/<name of the preset>, -2, -3, …"""
    resume: Annotated[str, _short("--resume")] = "never"
    """never; auto: continue the run in `output`, or the newest of this preset, where there is one; or a run folder."""
    device: Annotated[str, _short("--device")] = "auto"
    """auto (CUDA where there is one), cpu, cuda or cuda:N."""
    precision: Annotated[Literal["auto", "fp32", "bf16", "fp16"], _short("--precision")] = "auto"
    """auto: bf16 to train on GPUs that have it, else fp32. Evaluation and prediction follow bf16 and fp16, too."""
    seed: Annotated[int, _short("--seed")] = 0
    """Decides initial weights, order, augmentation, sampling and painted scenes."""
    deterministic: bool = False
    """Only deterministic algorithms; slower on a GPU."""
    channels_last: bool = True
    """Keep feature maps with channels innermost."""
    compile: bool = False
    """torch.compile the backbone and the pyramid."""
    threads: int = 0
    """CPU threads per process; 0 leaves torch's choice."""
    log_every: int = 20
    """Iterations between progress lines."""
    save_every: int = 1000
    """Iterations between snapshots (the last two are kept)."""
    evaluate: bool = True
    """Evaluate and draw pictures after the last iteration."""


@dataclass
class Config:
    """One run of rpcnn."""

    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    test: TestConfig = field(default_factory=TestConfig)
    run: RunConfig = field(default_factory=RunConfig)

    @property
    def labels(self) -> LabelSet:
        """The part names of the data set."""
        return MHP_V2 if self.data.dataset == "mhpv2" else CIHP


def preset_folder() -> pathlib.Path:
    """The folder of the presets: beside the package in a checkout, inside it in a wheel."""
    inside = pathlib.Path(__file__).parent / "configs"
    return inside if inside.is_dir() else pathlib.Path(__file__).parent.parent / "configs"


def find_preset(name: str | pathlib.Path) -> pathlib.Path:
    """The file that `name` means: a path, or the stem of a preset.

    Raises:
        ValueError: there is none; names the nearest preset.
    """
    for path in (pathlib.Path(name), preset_folder() / name, preset_folder() / f"{name}.toml"):
        if path.is_file():
            return path
    known = preset_names()
    near = difflib.get_close_matches(str(name).removesuffix(".toml"), known, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    top = ", ".join(preset for preset in known if "/" not in preset)
    raise ValueError(f"config: {str(name)!r} is neither a file nor a preset ({top}, ablations/…){hint}")


def preset_names() -> list[str]:
    """Every preset as load_config takes it: painted, …, ablations/cihp_gse, …"""
    return sorted(
        path.relative_to(preset_folder()).with_suffix("").as_posix() for path in preset_folder().rglob("*.toml")
    )


def load_config(path: str | pathlib.Path | None = None, overrides: Sequence[str] = ()) -> Config:
    """The resolved configuration: defaults, then the preset, then command-line style overrides.

    A file may begin with base = "NAME", another preset that it builds upon.

    Args:
        path: a TOML file or the name of a preset; None is "painted", the embedded default run.
        overrides: e.g. ["--train.iterations", "100", "--seed", "1"].

    Raises:
        ValueError: no such file, an unknown key (with the nearest known one), a value of the wrong type, or a base that
            has a base itself.
        SystemExit: an unknown or malformed override (tyro's message says which).
    """
    path = find_preset(path or "painted")
    values = _read_toml(path)
    if "base" in values:
        base = _read_toml(find_preset(values.pop("base")))
        if "base" in base:
            raise ValueError(f"{path}: base must be a preset without a base of its own")
        for group, entries in values.items():
            base[group] = {**base.get(group, {}), **entries} if isinstance(entries, dict) else entries
        values = base
    config = from_dict(values, source=str(path))
    if overrides:
        config = tyro.cli(Config, default=config, args=list(overrides), prog="rpcnn")
    validate(config)
    return config


def _read_toml(path: pathlib.Path) -> dict:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"config: {path} is not TOML: {error}") from None


def from_dict(values: dict, source: str = "config") -> Config:
    """A Config from nested dictionaries; absent keys keep their defaults. Raises ValueError as :func:`load_config`."""
    config = Config()
    _check_keys(values, [f.name for f in dataclasses.fields(config)], source)
    for group, entries in values.items():
        section = getattr(config, group)
        if not isinstance(entries, dict):
            raise ValueError(f"{source}: [{group}] must be a table, got {entries!r}")
        hints = typing.get_type_hints(type(section))
        _check_keys(entries, list(hints), f"{source} [{group}]")
        for key, value in entries.items():
            setattr(section, key, _typed(value, hints[key], f"{source}: {group}.{key}"))
    return config


def _check_keys(given, known: list[str], source: str) -> None:
    for key in given:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(known)}"
            raise ValueError(f"{source}: unknown key {key!r}; {hint}")


def _typed(value, hint, name: str):
    """The value as the type that the field asks for."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        if value not in arguments:
            raise ValueError(f"{name}: must be one of {', '.join(map(str, arguments))}, got {value!r}")
        return value
    if origin in (types.UnionType, typing.Union):
        for option in arguments:
            try:
                return _typed(value, option, name)
            except ValueError:
                continue
    if origin is tuple and isinstance(value, list | tuple):
        return tuple(_typed(item, arguments[0], name) for item in value)
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    is_flag_for_number = hint is int and isinstance(value, bool)
    if origin is None and isinstance(hint, type) and isinstance(value, hint) and not is_flag_for_number:
        return value
    raise ValueError(f"{name}: must be {getattr(hint, '__name__', hint)}, got {value!r}")


def validate(config: Config) -> None:
    """Raises ValueError where two knobs contradict each other or a number makes no sense."""
    data, train, test = config.data, config.train, config.test
    rules = [
        (data.short_side_min <= data.short_side_max, "data.short_side_min must not exceed data.short_side_max"),
        (all(side > 0 for side in data.short_sides), "data.short_sides must be positive"),
        (0 <= data.flip_probability <= 1, "data.flip_probability must lie in 0..1"),
        (train.iterations > 0, "train.iterations must be at least 1"),
        (train.batch_size > 0 and train.accumulate > 0, "train.batch_size and train.accumulate must be at least 1"),
        (train.learning_rate > 0, "train.learning_rate must be positive"),
        (list(train.steps) == sorted(train.steps), "train.steps must ascend"),
        (0 <= test.score_threshold <= 1, "test.score_threshold must lie in 0..1"),
        (0 <= test.semantic_gate <= 1, "test.semantic_gate must lie in 0..1"),
        (all(scale > 0 for scale in test.augment_scales), "test.augment_scales must be positive"),
        (test.augment_long_side_max > 0, "test.augment_long_side_max must be at least 1"),
        (test.soft_nms_sigma > 0, "test.soft_nms_sigma must be positive"),
        (0 <= test.voting_iou <= 1, "test.voting_iou must lie in 0..1"),
    ]
    for holds, message in rules:
        if not holds:
            raise ValueError(f"config: {message}")


def to_dict(config: Config) -> dict:
    """Nested dictionaries of plain values."""
    return json.loads(json.dumps(dataclasses.asdict(config)))


def to_toml(config: Config) -> str:
    """The whole configuration as TOML; ``load_config`` of it gives the same configuration."""
    lines = []
    for group, entries in to_dict(config).items():
        lines.append(f"[{group}]")
        # JSON's strings, numbers, booleans and arrays are TOML's too; null does not exist there: leave it out.
        lines += [f"{key} = {json.dumps(value)}" for key, value in entries.items() if value is not None]
        lines.append("")
    return "\n".join(lines)
