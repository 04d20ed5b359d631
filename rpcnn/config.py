"""The configuration of a run: a tree of dataclasses. Its defaults are the paper's CIHP run; presets (TOML) change some.

Precedence: defaults < base preset of a file < the file < command line. ``load_config`` returns the resolved tree,
``to_toml`` writes it. No two fields have the same name.
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

from rpcnn.runtime.imports import UNTRUSTED
from rpcnn.runtime.old_config import renamed
from rpcnn.variant import PAPER, VARIANTS, Variant


def _short(flag: str) -> Any:
    """A field with a short command-line flag besides the full one."""
    return tyro.conf.arg(aliases=[flag])


def _variant_of(words: list[str]) -> Variant:
    if words[0] not in VARIANTS:
        raise ValueError(f"variant must be one of {', '.join(VARIANTS)}")
    return VARIANTS[words[0]]


def _options_of(words: list[str]) -> dict[str, Any]:
    """Parse KEY=VALUE words as the lines of a TOML table; a value that is not TOML is a string."""
    lines = []
    for word in words:
        key, equals, text = word.partition("=")
        names = key.split(".")
        if not equals or not all(name.isidentifier() for name in names):
            raise ValueError(f"options must be KEY=VALUE, got {word!r}")
        try:
            tomllib.loads(f"value = {text}")
        except tomllib.TOMLDecodeError:
            text = json.dumps(text, ensure_ascii=False)
        lines.append(".".join(f'"{name}"' for name in names) + f" = {text}")
    try:
        return tomllib.loads("\n".join(lines))
    except tomllib.TOMLDecodeError:
        raise ValueError(f"options must have every key once, got {' '.join(words)}") from None


def _words_of(options: dict[str, Any], prefix: str = "") -> list[str]:
    words = []
    for key, value in options.items():
        nested = isinstance(value, dict) and value
        words += _words_of(value, f"{prefix}{key}.") if nested else [f"{prefix}{key}={_toml_value(value)}"]
    return words


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
    str_from_instance=_words_of,
)
Options = Annotated[dict[str, Any], _key_value]
"""Keyword arguments of a data set's class; KEY=VALUE words on the command line."""


@dataclass
class DataConfig:
    """The data set, and the augmentation for training."""

    dataset: str = "cihp"
    """cihp, mhpv2, lip, pascal_person_part: the distributed folders; folder: your own images, label maps and a
    labels.toml; painted: generated scenes; or package.module:Class, your own class (docs/datasets.md)."""
    root: Annotated[str, _short("--data-root")] = "data/CIHP"
    """Folder of the data set; docs/datasets.md describes its contents (CIHP: Training/ and Validation/)."""
    eval_split: str = "val"
    """Split for evaluation: val, train, or any other that the data set has."""
    short_side: tuple[int, int] = (512, 864)
    """Training: the short side is drawn from this range of pixels (Sec. 4.1)."""
    long_side_max: int = 1400
    """Training: largest long side in pixels (Sec. 4.1)."""
    flip_probability: float = 0.5
    """Training: probability of mirroring an image; left and right labels are exchanged."""
    workers: int = 4
    """Loader processes per rank; 0 loads in the training process."""
    options: Options = field(default_factory=dict)
    """Further keyword arguments of the data set's class. painted has train, val, short_side, difficulty."""


@dataclass
class ModelConfig:
    """The network's architecture."""

    backbone: str = "resnet50"
    """resnet18, resnet50, resnet101, mobilenet_v2; or package.module:name, a function that returns your own."""
    backbone_weights: Annotated[str, _short("--backbone-weights")] = ""
    """ImageNet weights of the backbone (.pth or .safetensors, torchvision's names); empty: random initialization.
    Weights for caffe's pixels need variant.pixel_format = bgr255; rpcnn.convert --pixels converts them to rgb."""
    backbone_norm: Literal["frozen_bn", "gn", "bn"] = "frozen_bn"
    """frozen_bn: constant statistics, for ImageNet weights (the paper); gn or bn: for random weights. bn is not
    synchronized: with it, training with several processes differs from one process."""
    backbone_width: float = 1.0
    """Factor on the backbone's channels; ImageNet weights need 1."""
    freeze_at: int = 2
    """Number of frozen stages of the backbone: 0 none, 1 the stem, 2 the stem and C2 (the paper), … 5 all."""
    fpn_channels: int = 256
    """Channels of the pyramid (Sec. 3.3)."""
    num_groups: int = 32
    """Groups of every GroupNorm outside the backbone."""
    gse: bool = True
    """Use the global semantic branch of GSE-FPN; false: plain FPN as in Parsing R-CNN."""
    gse_convs: int = 4
    """Number of 3x3 convolutions of the global semantic feature (Sec. 3.3)."""
    anchor_sizes: tuple[int, ...] = (32, 64, 128, 256, 512)
    """Anchor sides in pixels, one per level."""
    canonical_size: int = 224
    """Side in pixels of the RoIs that are assigned to the stride-16 level."""
    box_channels: int = 1024
    """Channels of the box branch."""
    parsing_resolution: int = 32
    """Cells per side of the RoI features of the parsing branch (Sec. 3.4)."""
    parsing_output: int = 128
    """Side of the parsing maps in pixels (Sec. 3.4)."""
    parsing_channels: int = 512
    """Channels of the parsing branch."""
    parsing_convs: int = 4
    """Number of 3x3 convolutions after the non-local block."""
    aspp_channels: int = 256
    """Channels of each ASPP branch."""
    prsn: bool = True
    """Use the parsing re-scoring network (Sec. 3.4)."""
    prsn_channels: int = 128
    """Channels of its convolutions."""
    prsn_hidden: int = 256
    """Channels of its fully connected layers."""
    parts: Annotated[dict[str, Any], _key_value] = field(default_factory=dict)
    """Further arguments of the parts' constructors, for example rpn.samples=128 box_head.resolution=14: whatever fpn,
    gse, rpn, box_head, parsing_head and prsn take and no other field sets."""


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
    """Training: sampling of anchors, RoIs and people for the losses."""

    rpn_top_train: int = 2000
    """Proposals per level before NMS and per image after it."""
    rpn_ignore_border: bool = True
    """Exclude anchors that extend beyond the image from the loss."""
    box_samples: int = 512
    """RoIs per image for the box branch (Sec. 4.1)."""
    parsing_samples: int = 16
    """People per image for the parsing branch (Sec. 4.1)."""


@dataclass
class InferenceConfig:
    """From an image to people and a label map (Sec. 3.5). Stored with the weights; every field can be changed later."""

    test_short_side: int = 800
    """Short side in pixels that images are resized to (Sec. 4.1)."""
    test_long_side_max: int = 1333
    """Largest long side in pixels after resizing (released code)."""
    rpn_top_test: int = 1000
    """Proposals per level before NMS and per image after it."""
    min_box_score: float = 0.05
    """Boxes with lower scores are dropped."""
    nms_threshold: float = 0.5
    """IoU above which the box with the lower score is dropped."""
    max_detections: int = 100
    """Largest number of boxes per image that are parsed (Sec. 3.5)."""
    min_parsing_score: float = 0.3
    """Smallest parsing score of the people in the combined map (released code: 0.3 CIHP, 0.05 MHP-v2)."""
    semantic_mode: Literal["combine", "parsing", "semseg"] = "combine"
    """Rows of Table 6. combine: people over the global map (Fig. 4); parsing: people only; semseg: global map only."""
    semantic_gate: float = 0.7
    """Smallest probability at which the global map is used (released code)."""
    instance_semantic_weight: float = 0.2
    """Weight of the global probabilities in the map of each person (released code)."""
    augment: bool = False
    """Test-time augmentation: average predictions at several scales and of mirror images (Table 9)."""
    augment_scales: tuple[float, ...] = (0.5, 0.625, 0.75, 0.875, 1.125, 1.25, 1.375, 1.5)
    """Further scales, relative to test_short_side: for 800, the released 400, 500, 600, 700, 900 … 1200."""
    augment_flip: bool = True
    """Also use the mirror image at every scale: 18 passes with the eight scales above."""
    soft_nms: Literal["linear", "gaussian", "off"] = "linear"
    """With augment: soft-NMS of the boxes of all passes (released code: linear); off: plain NMS."""
    voting_iou: float = 0.9
    """With augment: smallest IoU of the boxes that are averaged by box voting (released code); 0: no voting."""


@dataclass
class TrainConfig:
    """Optimizer and schedule (Sec. 4.1)."""

    iterations: Annotated[int, _short("--iterations")] = 135_000
    """Optimizer steps."""
    batch_size: Annotated[int, _short("--batch-size")] = 16
    """Images per optimizer step, over all processes and accumulation steps."""
    accumulate: int = 1
    """Gradient accumulation: forward and backward passes per step, each on a part of the batch, to save memory."""
    init_weights: Annotated[str, _short("--init-weights")] = ""
    """Initialize from these weights: a run folder or a .safetensors of rpcnn. If the label sets differ, layers that
    depend on the classes are initialized as init_classes says."""
    init_classes: Literal["new", "same-names"] = "new"
    """With init_weights and another label set. new: random class layers; same-names: copy classes of the same name."""
    optimizer: Literal["sgd", "adamw"] = "sgd"
    """sgd (the paper, momentum 0.9); adamw needs far fewer steps in short runs of minutes."""
    learning_rate: float = 0.02
    """Learning rate for batch size 16; scaled linearly to learning_rate · batch_size / 16."""
    decay: Literal["steps", "cosine"] = "steps"
    """steps (the paper); cosine: half a cosine to 0 at the last iteration, better in short runs of minutes."""
    steps: tuple[int, ...] = (105_000, 125_000)
    """Iterations at which the learning rate is multiplied by 0.1."""
    warmup_iterations: int = 1000
    """Iterations over which the learning rate rises linearly, from a factor of 1e-4."""
    weight_decay: float = 1e-4
    """Applied to weights, not to biases and norm weights. Biases have twice the learning rate."""
    clip_gradient_norm: float = 0.0
    """Largest gradient norm; 0: no clipping (the paper)."""


@dataclass
class RunConfig:
    """Output, device, precision and logging."""

    output: Annotated[str, _short("--output")] = ""
    """Run folder; empty makes runs/<name of the preset>, -2, -3, …"""
    resume: Annotated[str, _short("--resume")] = "never"
    """never; auto: resume the run in `output`, or else the newest of this preset, if there is one; or a run folder."""
    device: Annotated[str, _short("--device")] = "auto"
    """auto (CUDA where there is one), cpu, cuda or cuda:N."""
    precision: Annotated[Literal["auto", "fp32", "bf16", "fp16"], _short("--precision")] = "auto"
    """auto: bf16 for training on GPUs that support it, else fp32. bf16 and fp16 also apply to evaluation and
    prediction."""
    seed: Annotated[int, _short("--seed")] = 0
    """Seed of initial weights, order of images, augmentation, sampling and painted scenes."""
    deterministic: bool = False
    """Use only deterministic algorithms; slower on a GPU."""
    compile: bool = False
    """Training: apply torch.compile to backbone and FPN."""
    log_every: int = 20
    """Iterations between progress lines."""
    save_every: int = 1000
    """Iterations between snapshots (the last two are kept)."""
    evaluate: bool = True
    """Evaluate after the last iteration."""
    pictures: int = 12
    """Number of pictures of input, ground truth and prediction that an evaluation writes."""
    save_predictions: Literal["", "instances", "people", "coco", "cihp", "mhp"] = ""
    """Format of docs/formats.md in which an evaluation writes its predictions; empty: none are written."""


@dataclass
class Config:
    """The configuration of one run."""

    variant: Annotated[Variant, _variant_by_name] = PAPER
    """paper, or released: every detail as in the authors' code (docs/released.md). A TOML table [variant] changes
    single details."""
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    inference: InferenceConfig = field(default_factory=InferenceConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    run: RunConfig = field(default_factory=RunConfig)


def preset_folder() -> pathlib.Path:
    """The folder of the presets: next to the package in a checkout, inside it in a wheel."""
    inside = pathlib.Path(__file__).parent / "configs"
    return inside if inside.is_dir() else pathlib.Path(__file__).parent.parent / "configs"


def find_preset(name: str | pathlib.Path) -> pathlib.Path:
    """The file of a preset.

    Args:
        name: a path, or the name of a preset.

    Raises:
        ValueError: there is no such file; the message suggests the nearest preset.
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
    """Names of all presets, as `load_config` takes them: painted, …, ablations/cihp_gse, …"""
    return sorted(
        path.relative_to(preset_folder()).with_suffix("").as_posix() for path in preset_folder().rglob("*.toml")
    )


def load_config(path: str | pathlib.Path | None = None, overrides: Sequence[str] = ()) -> Config:
    """Load a configuration: defaults, changed by a preset, changed by command-line style overrides.

    A file may begin with base = "NAME", a preset whose values it changes.

    Args:
        path: a TOML file or the name of a preset; None is the preset "painted".
        overrides: e.g. ["--train.iterations", "100", "--seed", "1"].

    Raises:
        ValueError: no such file, an unknown key (the message suggests the nearest), a value of the wrong type, or a
            base that has a base itself.
        SystemExit: an unknown or malformed override; tyro prints which.
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
                below = {key: value for key, value in below.items() if key != "options"}  # options belong to a data set
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
    """Make a Config from nested dictionaries; missing keys keep their defaults.

    Configurations from before version 0.2 are supported: their fields are moved to the current names.

    Raises:
        ValueError: as :func:`load_config`; `source` begins the message.
    """
    values = renamed(values, source)
    config = Config()
    check_keys(values, [f.name for f in dataclasses.fields(config)], source)
    config.variant = _variant(values.pop("variant", "paper"), source)
    for group, entries in values.items():
        section = getattr(config, group)
        if not isinstance(entries, dict):
            raise ValueError(f"{source}: [{group}] must be a table, got {entries!r}")
        for key, value in _typed_fields(type(section), entries, f"{source} [{group}]", f"{source}: {group}").items():
            setattr(section, key, value)
    return config


def _variant(value: str | dict, source: str) -> Variant:
    """The variant of a name, or of a table with fields that differ from its `base` (default: the paper)."""
    changes = dict(value) if isinstance(value, dict) else {"base": value}
    base = changes.pop("base", "paper")
    if base not in VARIANTS:
        raise ValueError(f"{source}: variant must be one of {', '.join(VARIANTS)}, or a table, got {base!r}")
    fields = _typed_fields(Variant, changes, f"{source} [variant]", f"{source}: variant")
    return dataclasses.replace(VARIANTS[base], **fields)


def _typed_fields(section: type, entries: dict, place: str, prefix: str) -> dict:
    """Check that all keys are fields of the dataclass `section` and convert the values to the types of the fields."""
    hints = typing.get_type_hints(section)
    check_keys(entries, list(hints), place)
    return {key: typed(value, hints[key], f"{prefix}.{key}") for key, value in entries.items()}


def check_keys(given: Iterable[str], known: list[str], source: str) -> None:
    """Raise ValueError, which suggests the nearest known key, if a given key is not known."""
    for key in given:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(known) or 'none'}"
            raise ValueError(f"{source}: unknown key {key!r}; {hint}")


def typed(value: Any, hint: Any, name: str) -> Any:
    """Convert a value to the type of its field; raise ValueError if it does not fit."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        if value not in arguments:
            raise ValueError(f"{name}: must be one of {', '.join(map(str, arguments))}, got {value!r}")
        return value
    if origin in (types.UnionType, typing.Union):
        for option in arguments:
            try:
                return typed(value, option, name)
            except ValueError:
                continue
    if origin is dict and isinstance(value, dict):
        return dict(value)
    if origin is Sequence and isinstance(value, list | tuple):
        return tuple(typed(item, arguments[0], name) for item in value)
    if origin is tuple and isinstance(value, list | tuple):
        if ... not in arguments and len(value) != len(arguments):
            raise ValueError(f"{name}: must hold {len(arguments)} values, got {value!r}")
        return tuple(typed(item, arguments[0], name) for item in value)
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    is_flag_for_number = hint is int and isinstance(value, bool)
    if origin is None and isinstance(hint, type) and isinstance(value, hint) and not is_flag_for_number:
        return value
    wanted = f"a list of {arguments[0].__name__}" if origin is Sequence else getattr(hint, "__name__", hint)
    raise ValueError(f"{name}: must be {wanted}, got {value!r}")


def validate(config: Config) -> None:
    """Raise ValueError if a value is out of range or two fields contradict each other."""
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
    """Copy a configuration with changed fields of its group inference.

    Args:
        changes: values by the name of the field.
        source: begins error messages.

    Raises:
        ValueError: no such field, or a value of the wrong type or out of range.
    """
    fields = _typed_fields(InferenceConfig, changes, source, source)
    changed = dataclasses.replace(config, inference=dataclasses.replace(config.inference, **fields))
    validate(changed)
    return changed


def change(config: Config, arguments: Sequence[str], prog: str) -> Config:
    """Apply command-line arguments to a configuration and validate it.

    Given data.options and model.parts are merged over those of the configuration; if the arguments change the data set,
    data.options replace them.

    Raises:
        ValueError: a value is out of range, or two fields contradict each other.
        SystemExit: an unknown or malformed argument (tyro prints which), or --help.
    """
    changed = tyro.cli(Config, default=config, args=list(arguments), prog=prog)
    if changed.data.dataset == config.data.dataset.removeprefix(UNTRUSTED):
        changed.data.options = config.data.options | changed.data.options
    elif changed.data.options == config.data.options:
        changed.data.options = {}
    for part, kept in config.model.parts.items():
        changed.model.parts[part] = kept | changed.model.parts.get(part, {})
    validate(changed)
    return changed


def to_dict(config: Config) -> dict:
    """Convert to nested dictionaries of plain values; `variant` is a name, or a table of the changes to the paper."""
    values = json.loads(json.dumps(dataclasses.asdict(config)))
    names = [name for name, variant in VARIANTS.items() if variant == config.variant]
    paper = json.loads(json.dumps(dataclasses.asdict(PAPER)))
    changed = {key: value for key, value in values["variant"].items() if value != paper[key]}
    return values | {"variant": names[0] if names else changed}


def to_toml(config: Config) -> str:
    """Write the whole configuration as TOML, from which ``load_config`` makes an equal configuration."""
    lines = []
    for group, entries in to_dict(config).items():
        if isinstance(entries, str):
            lines += [f"{group} = {json.dumps(entries)}", ""]
        else:
            lines += [f"[{group}]", *(f"{key} = {_toml_value(value)}" for key, value in entries.items()), ""]
    return "\n".join(lines)


def _toml_value(value: Any) -> str:
    """A value as TOML. Strings, numbers, booleans and arrays are written as JSON; only tables differ."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{json.dumps(key)} = {_toml_value(entry)}" for key, entry in value.items()) + " }"
    return json.dumps(value)
