"""Every knob of a run: one dataclass tree, whose defaults are the paper's CIHP run. TOML presets hold what differs.

Precedence: defaults < the preset that a file names as its base < the file < command line. ``load_config`` gives the
resolved tree, ``to_toml`` writes it back. The groups say when a field matters; no two fields share a name.
"""

import dataclasses
import difflib
import json
import pathlib
import tomllib
import types
import typing
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import tyro

from rpcnn.runtime.old_config import renamed
from rpcnn.variant import PAPER, VARIANTS, Variant


def _short(flag: str) -> Any:
    """A command-line name besides the full one."""
    return tyro.conf.arg(aliases=[flag])


def _variant_of(words: list[str]) -> Variant:
    if words[0] not in VARIANTS:
        raise ValueError(f"variant must be one of {', '.join(VARIANTS)}")
    return VARIANTS[words[0]]


def _options_of(words: list[str]) -> dict[str, Any]:
    """KEY=VALUE words; values as TOML has them, anything else is text."""
    options = {}
    for word in words:
        key, equals, text = word.partition("=")
        if not equals or not key.isidentifier():
            raise ValueError(f"options must be KEY=VALUE, got {word!r}")
        try:
            options[key] = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            options[key] = text
    return options


_variant_by_name = tyro.constructors.PrimitiveConstructorSpec(
    nargs=1,
    metavar="{" + ",".join(VARIANTS) + "}",
    instance_from_str=_variant_of,
    is_instance=lambda value: isinstance(value, Variant),
    str_from_instance=lambda variant: [next((name for name, known in VARIANTS.items() if known == variant), "changed")],
)
_key_value = tyro.constructors.PrimitiveConstructorSpec(
    nargs="*",
    metavar="[KEY=VALUE …]",
    instance_from_str=_options_of,
    is_instance=lambda value: isinstance(value, dict),
    str_from_instance=lambda options: [f"{key}={json.dumps(value)}" for key, value in options.items()],
)
Options = Annotated[dict[str, Any], _key_value]
"""Keyword arguments of a data set's class; on the command line KEY=VALUE words."""


@dataclass
class DataConfig:
    """Which pictures, and how those to train on are resized."""

    dataset: str = "cihp"
    """cihp, mhpv2, lip, pascal_person_part: folders as they are distributed; folder: your pictures, maps and a
    labels.toml; painted: scenes painted here; or package.module:Class, a class of your own (docs/datasets.md)."""
    root: Annotated[str, _short("--data-root")] = "data/CIHP"
    """Folder of the data set (docs/datasets.md says what it holds; CIHP: Training/ and Validation/)."""
    eval_split: str = "val"
    """Split to evaluate on: val, train, or what else the data set has."""
    short_side: tuple[int, int] = (512, 864)
    """Training: the short side is drawn from this range of pixels (Sec. 4.1)."""
    long_side_max: int = 1400
    """Training: the long side never exceeds this (Sec. 4.1)."""
    flip_probability: float = 0.5
    """Training: how often an image is mirrored, with left and right labels exchanged."""
    workers: int = 4
    """Loader processes per rank; 0 loads in the training process."""
    options: Options = field(default_factory=dict)
    """Further keyword arguments of the data set's class, for painted: train, val, short_side, difficulty."""


@dataclass
class ModelConfig:
    """The network's architecture."""

    backbone: str = "resnet50"
    """resnet18, resnet50, resnet101, mobilenet_v2; or package.module:name, a function that makes one of your own."""
    backbone_weights: Annotated[str, _short("--backbone-weights")] = ""
    """ImageNet weights of the backbone (.pth or .safetensors, torchvision's names); empty starts from random ones.
    Weights that read caffe's pixels fit variant.pixel_format = bgr255; rpcnn.convert --pixels makes them fit rgb."""
    backbone_norm: Literal["frozen_bn", "gn", "bn"] = "frozen_bn"
    """frozen_bn: constant statistics, for ImageNet weights (the paper); gn or bn: to train from random weights.
    The statistics of bn are each process's own: with it, several processes do not equal one."""
    backbone_width: float = 1.0
    """Factor on the backbone's channels; ImageNet weights fit 1 only."""
    freeze_at: int = 2
    """Stages of the backbone that do not train: 0 none, 1 the stem, 2 the stem and C2 (the paper), … 5 all."""
    fpn_channels: int = 256
    """Width of the pyramid (Sec. 3.3)."""
    num_groups: int = 32
    """Groups of every GroupNorm outside the backbone."""
    gse: bool = True
    """With the global semantic branch of GSE-FPN; false gives the plain FPN of Parsing R-CNN."""
    gse_convs: int = 4
    """3x3 convolutions of the global semantic feature (Sec. 3.3)."""
    anchor_sizes: tuple[int, ...] = (32, 64, 128, 256, 512)
    """Anchor sides in pixels, one per level."""
    canonical_size: int = 224
    """RoIs of this side in pixels are read from the stride-16 level."""
    box_channels: int = 1024
    """Width of the box branch."""
    parsing_resolution: int = 32
    """RoI features of the parsing branch, cells a side (Sec. 3.4)."""
    parsing_output: int = 128
    """Side of the parsing maps (Sec. 3.4)."""
    parsing_channels: int = 512
    """Width of the parsing branch."""
    parsing_convs: int = 4
    """3x3 convolutions after the non-local block."""
    aspp_channels: int = 256
    """Width of each ASPP branch."""
    prsn: bool = True
    """With the parsing re-scoring network (Sec. 3.4)."""
    prsn_channels: int = 128
    """Width of its convolutions."""
    prsn_hidden: int = 256
    """Width of its fully connected layers."""
    parts: Annotated[dict[str, Any], _key_value] = field(default_factory=dict)
    """Further arguments of the parts, rarely turned: anchor_ratios, rpn_nms_threshold, rpn_samples, box_resolution,
    box_positive_fraction, aspp_dilations."""


@dataclass
class LossConfig:
    """Weights of Eq. 1."""

    lambda_parsing: float = 2.0
    """Weight of the parsing loss, λp."""
    lambda_semantic: float = 2.0
    """Weight of the global segmentation loss, λs."""
    lambda_rescoring: float = 1.0
    """Weight of the re-scoring loss, λr."""


@dataclass
class SamplingConfig:
    """Training: which anchors, RoIs and people the losses see."""

    rpn_top_train: int = 2000
    """Proposals per level before suppression and per image after it."""
    rpn_ignore_border: bool = True
    """Anchors that leave the image take no part in the loss."""
    box_samples: int = 512
    """RoIs per image that train the box branch (Sec. 4.1)."""
    parsing_samples: int = 16
    """People per image that train the parsing branch (Sec. 4.1)."""


@dataclass
class InferenceConfig:
    """From a picture to people and to one label map (Sec. 3.5). Weights carry these; each can be changed later."""

    test_short_side: int = 800
    """Pixels of the short side (Sec. 4.1)."""
    test_long_side_max: int = 1333
    """The long side never exceeds this (released code)."""
    rpn_top_test: int = 1000
    """Proposals per level before suppression and per image after it."""
    min_box_score: float = 0.05
    """Boxes below this score are dropped."""
    nms_threshold: float = 0.5
    """IoU above which the weaker box is dropped."""
    max_detections: int = 100
    """The best boxes per image that are parsed (Sec. 3.5)."""
    min_parsing_score: float = 0.3
    """People enter the combined map from this parsing score on (released code: 0.3 CIHP, 0.05 MHP-v2)."""
    semantic_mode: Literal["combine", "parsing", "semseg"] = "combine"
    """Rows of Table 6: global map and people combined (Fig. 4), people only, global map only."""
    semantic_gate: float = 0.7
    """Confidence from which on the global map counts (released code)."""
    instance_semantic_weight: float = 0.2
    """Weight of the global probabilities in each person's own map (released code)."""
    augment: bool = False
    """Test-time augmentation: every image at several scales and mirrored, the answers averaged (Table 9)."""
    augment_scales: tuple[float, ...] = (0.5, 0.625, 0.75, 0.875, 1.125, 1.25, 1.375, 1.5)
    """Scales besides test_short_side, relative to it: of 800, the released 400, 500, 600, 700, 900 … 1200."""
    augment_flip: bool = True
    """See the mirror image at every scale, too: 18 passes with the eight scales above."""
    soft_nms: Literal["linear", "gaussian", "off"] = "linear"
    """With augment: how boxes of all passes compete (released code: linear); off is the NMS of a single pass."""
    voting_iou: float = 0.9
    """With augment: a box becomes the mean of all that overlap it by this IoU (released code); 0 leaves it alone."""


@dataclass
class TrainConfig:
    """Optimizer and schedule (Sec. 4.1)."""

    iterations: Annotated[int, _short("--iterations")] = 135_000
    """Optimizer steps."""
    batch_size: Annotated[int, _short("--batch-size")] = 16
    """Images per optimizer step, over all processes and accumulation steps."""
    accumulate: int = 1
    """Split each process's share of a batch into this many forward and backward passes, to save memory."""
    init_weights: Annotated[str, _short("--init-weights")] = ""
    """Start from these weights: a run folder or a .safetensors of rpcnn; layers that depend on the classes are new
    where the classes are others."""
    init_classes: Literal["new", "same-names"] = "new"
    """With init_weights and other classes: new makes the class layers anew; same-names copies the rows of classes that
    have the same name."""
    optimizer: Literal["sgd", "adamw"] = "sgd"
    """sgd (the paper, momentum 0.9); adamw reaches a useful network in far fewer steps where there are only minutes."""
    learning_rate: float = 0.02
    """Rate for 16 images per step; the linear rule scales it: rate · batch_size / 16."""
    decay: Literal["steps", "cosine"] = "steps"
    """steps (the paper); cosine: half a cosine to 0 at the last iteration, better where there are only minutes."""
    steps: tuple[int, ...] = (105_000, 125_000)
    """Iterations at which the rate falls to a tenth."""
    warmup_iterations: int = 1000
    """The rate rises linearly over these, from a ten-thousandth of it."""
    weight_decay: float = 1e-4
    """On weights; biases and GroupNorm scales have none, and biases learn at twice the rate."""
    clip_gradient_norm: float = 0.0
    """Largest gradient norm; 0 does not clip (the paper's choice)."""


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
    compile: bool = False
    """Training: torch.compile the backbone and the pyramid."""
    log_every: int = 20
    """Iterations between progress lines."""
    save_every: int = 1000
    """Iterations between snapshots (the last two are kept)."""
    evaluate: bool = True
    """Evaluate and draw pictures after the last iteration."""
    pictures: int = 12
    """How many pictures of input, truth and prediction an evaluation writes."""
    save_predictions: Literal["", "instances", "people", "coco", "cihp", "mhp"] = ""
    """An evaluation also writes its predictions, in a format of docs/formats.md; empty writes none."""


@dataclass
class Config:
    """One run of rpcnn."""

    variant: Annotated[Variant, _variant_by_name] = PAPER
    """paper, or released: the authors' code in every detail (docs/released.md). A TOML table [variant] changes single
    details."""
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    inference: InferenceConfig = field(default_factory=InferenceConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    run: RunConfig = field(default_factory=RunConfig)


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
            below = base.get(group, {})
            below = below if isinstance(below, dict) else {"base": below}  # variant = "released"
            if group == "data" and "dataset" in entries and entries["dataset"] != below.get("dataset"):
                below = {key: value for key, value in below.items() if key != "options"}  # another data set's
            base[group] = {**below, **entries} if isinstance(entries, dict) else entries
        values = base
    config = from_dict(values, source=str(path))
    if overrides:
        return change(config, overrides, prog="rpcnn train")
    validate(config)
    return config


def _read_toml(path: pathlib.Path) -> dict:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"config: {path} is not TOML: {error}") from None


def from_dict(values: dict, source: str = "config") -> Config:
    """A Config from nested dictionaries; absent keys keep their defaults. Raises ValueError as :func:`load_config`.

    Fields of configurations before version 0.2 are read as what they are called now.
    """
    values = renamed(values, source)
    config = Config()
    _check_keys(values, [f.name for f in dataclasses.fields(config)], source)
    config.variant = _variant(values.pop("variant", "paper"), source)
    for group, entries in values.items():
        section = getattr(config, group)
        if not isinstance(entries, dict):
            raise ValueError(f"{source}: [{group}] must be a table, got {entries!r}")
        for key, value in _typed_fields(type(section), entries, f"{source} [{group}]", f"{source}: {group}").items():
            setattr(section, key, value)
    return config


def _variant(value: str | dict, source: str) -> Variant:
    """The variant of a name, or of a table of fields that differ from its `base` (default: the paper)."""
    changes = dict(value) if isinstance(value, dict) else {"base": value}
    base = changes.pop("base", "paper")
    if base not in VARIANTS:
        raise ValueError(f"{source}: variant must be one of {', '.join(VARIANTS)}, or a table, got {base!r}")
    fields = _typed_fields(Variant, changes, f"{source} [variant]", f"{source}: variant")
    return dataclasses.replace(VARIANTS[base], **fields)


def _typed_fields(section: type, entries: dict, place: str, prefix: str) -> dict:
    """The entries of a table as the types of the dataclass `section`, whose fields they must be."""
    hints = typing.get_type_hints(section)
    _check_keys(entries, list(hints), place)
    return {key: _typed(value, hints[key], f"{prefix}.{key}") for key, value in entries.items()}


def _check_keys(given: Iterable[str], known: list[str], source: str) -> None:
    for key in given:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(known)}"
            raise ValueError(f"{source}: unknown key {key!r}; {hint}")


def _typed(value: Any, hint: Any, name: str) -> Any:
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
    if origin is dict and isinstance(value, dict):
        return dict(value)
    if origin is tuple and isinstance(value, list | tuple):
        if ... not in arguments and len(value) != len(arguments):
            raise ValueError(f"{name}: must hold {len(arguments)} values, got {value!r}")
        return tuple(_typed(item, arguments[0], name) for item in value)
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    is_flag_for_number = hint is int and isinstance(value, bool)
    if origin is None and isinstance(hint, type) and isinstance(value, hint) and not is_flag_for_number:
        return value
    raise ValueError(f"{name}: must be {getattr(hint, '__name__', hint)}, got {value!r}")


def validate(config: Config) -> None:
    """Raises ValueError where two knobs contradict each other or a number makes no sense."""
    data, train, inference = config.data, config.train, config.inference
    in_unit = {
        "data.flip_probability": data.flip_probability,
        "inference.min_box_score": inference.min_box_score,
        "inference.nms_threshold": inference.nms_threshold,
        "inference.min_parsing_score": inference.min_parsing_score,
        "inference.semantic_gate": inference.semantic_gate,
        "inference.voting_iou": inference.voting_iou,
    }
    rules = [
        (0 < data.short_side[0] <= data.short_side[1], "data.short_side must be a range of positive pixels, low high"),
        (all(side > 0 for side in config.variant.short_sides), "variant.short_sides must be positive"),
        *((0 <= value <= 1, f"{name} must lie in 0..1") for name, value in in_unit.items()),
        (train.iterations > 0, "train.iterations must be at least 1"),
        (train.batch_size > 0 and train.accumulate > 0, "train.batch_size and train.accumulate must be at least 1"),
        (train.learning_rate > 0, "train.learning_rate must be positive"),
        (list(train.steps) == sorted(train.steps), "train.steps must ascend"),
        (inference.test_short_side > 0, "inference.test_short_side must be at least 1"),
        (inference.test_long_side_max > 0, "inference.test_long_side_max must be at least 1"),
        (all(scale > 0 for scale in inference.augment_scales), "inference.augment_scales must be positive"),
    ]
    for holds, message in rules:
        if not holds:
            raise ValueError(f"config: {message}")


def changed_inference(config: Config, changes: dict, source: str) -> Config:
    """A copy with fields of the group inference changed, by name.

    Raises:
        ValueError: no such field, or a value of the wrong type or out of range; `source` begins the message.
    """
    fields = _typed_fields(InferenceConfig, changes, source, source)
    changed = dataclasses.replace(config, inference=dataclasses.replace(config.inference, **fields))
    validate(changed)
    return changed


def change(config: Config, arguments: Sequence[str], prog: str) -> Config:
    """A configuration with command-line style changes, checked; another data set does not inherit data.options.

    Raises:
        ValueError: two fields contradict each other.
        SystemExit: an unknown or malformed argument (tyro's message says which), or --help.
    """
    changed = tyro.cli(Config, default=config, args=list(arguments), prog=prog)
    if changed.data.dataset != config.data.dataset and changed.data.options == config.data.options:
        changed.data.options = {}
    validate(changed)
    return changed


def to_dict(config: Config) -> dict:
    """Nested dictionaries of plain values; `variant` is a name, or a table of what differs from the paper."""
    values = json.loads(json.dumps(dataclasses.asdict(config)))
    names = [name for name, variant in VARIANTS.items() if variant == config.variant]
    paper = json.loads(json.dumps(dataclasses.asdict(PAPER)))
    changed = {key: value for key, value in values["variant"].items() if value != paper[key]}
    return values | {"variant": names[0] if names else changed}


def to_toml(config: Config) -> str:
    """The whole configuration as TOML; ``load_config`` of it gives the same configuration."""
    lines = []
    for group, entries in to_dict(config).items():
        if isinstance(entries, str):
            lines += [f"{group} = {json.dumps(entries)}", ""]
        else:
            lines += [f"[{group}]", *(f"{key} = {_toml_value(value)}" for key, value in entries.items()), ""]
    return "\n".join(lines)


def _toml_value(value: Any) -> str:
    """JSON's strings, numbers, booleans and arrays are TOML's, too; tables are not."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{json.dumps(key)} = {_toml_value(entry)}" for key, entry in value.items()) + " }"
    return json.dumps(value)
