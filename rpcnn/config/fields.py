"""The fields of a configuration: a tree of dataclasses. Its defaults are the paper's CIHP run.

No two fields have the same name.
"""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from rpcnn.variant import PAPER, Variant

from .words import Options, short_flag, variant_by_name


@dataclass
class DataConfig:
    """The data set, and the augmentation for training."""

    dataset: str = "cihp"
    """cihp, mhpv2, lip, pascal_person_part: the distributed folders; folder: your own images, label maps and a
    labels.toml; painted, rendered: generated scenes; or package.module:Class, your own class (docs/datasets.md)."""
    root: Annotated[str, short_flag("--data-root")] = "data/CIHP"
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
    backbone_weights: Annotated[str, short_flag("--backbone-weights")] = ""
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
    prsn: bool = True
    """Use the parsing re-scoring network (Sec. 3.4)."""
    parts: Options = field(default_factory=dict)
    """Further arguments of the parts' constructors, for example rpn.samples=128 gse.num_convs=2: whatever fpn, gse,
    rpn, box_head, parsing_head and prsn take and no other field sets."""


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

    iterations: Annotated[int, short_flag("--iterations")] = 135_000
    """Optimizer steps."""
    batch_size: Annotated[int, short_flag("--batch-size")] = 16
    """Images per optimizer step, over all processes and accumulation steps."""
    accumulate: int = 1
    """Gradient accumulation: forward and backward passes per step, each on a part of the batch, to save memory."""
    init_weights: Annotated[str, short_flag("--init-weights")] = ""
    """Initialize from these weights: a run folder, a .safetensors of rpcnn, or photo, the model that comes with it. If
    the label sets differ, layers that depend on the classes are initialized as init_classes says."""
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
    ema_decay: float = 0.0
    """Also keep a moving average of the weights (ema.safetensors) that keeps this part of itself in each step, such as
    0.999; 0: none (the paper)."""
    max_skips: int = 5
    """Steps with a gradient that is not finite are skipped. After more than this many in a row, training goes back to
    the last snapshot with half the learning rate; after three such returns it stops."""


@dataclass
class RunConfig:
    """Output, device, precision and logging."""

    output: Annotated[str, short_flag("--output")] = ""
    """Run folder; empty makes runs/<name of the preset>, -2, -3, …"""
    resume: Annotated[str, short_flag("--resume")] = "never"
    """never; auto: resume the run in `output`, or else the newest of this preset, if there is one; or a run folder."""
    device: Annotated[str, short_flag("--device")] = "auto"
    """auto (CUDA where there is one), cpu, cuda or cuda:N."""
    precision: Annotated[Literal["auto", "fp32", "bf16", "fp16"], short_flag("--precision")] = "auto"
    """auto: bf16 for training on GPUs that support it, else fp32. bf16 and fp16 also apply to evaluation and
    prediction."""
    seed: Annotated[int, short_flag("--seed")] = 0
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
    evaluate_every: int = 0
    """Iterations between evaluations while training, which keep the best weights in best.safetensors; 0: none."""
    best_metric: str = "miou"
    """The metric, as in results.json, by which the best weights are chosen."""
    patience: int = 0
    """End training after this many evaluations in a row without a better best_metric; 0: never."""
    pictures: int = 12
    """Number of pictures of input, ground truth and prediction that an evaluation writes."""
    save_predictions: Literal["", "instances", "people", "coco", "cihp", "mhp"] = ""
    """Format of docs/formats.md in which an evaluation writes its predictions; empty: none are written."""


@dataclass
class Config:
    """The configuration of one run."""

    variant: Annotated[Variant, variant_by_name] = PAPER
    """paper, or released: every detail as in the authors' code (docs/released.md). A TOML table [variant] changes
    single details."""
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    inference: InferenceConfig = field(default_factory=InferenceConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    run: RunConfig = field(default_factory=RunConfig)
