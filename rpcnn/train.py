"""Train RP R-CNN: ``python -m rpcnn.train [config] [--key value …]``.

config is a TOML file or the name of a preset (configs/*.toml). The default, "painted", paints scenes of people, trains
a small network on them, evaluates it on new scenes and writes pictures. Every field of the configuration can be given
on the command line (--train.iterations 1000, or short: --iterations 1000); --help lists them all.

    python -m rpcnn.train                                          the default, minutes on two CPU cores
    python -m rpcnn.train cihp_r50 --data-root /data/CIHP --backbone-weights resnet50.pth
    torchrun --nproc_per_node=8 -m rpcnn.train cihp_r50 --data-root /data/CIHP
    python -m rpcnn.train cihp_r50 --output runs/mine --resume auto   continues an interrupted run, bit for bit

Learning rate: train.learning_rate is for batch size 16 and is scaled linearly with train.batch_size, which counts the
images of all processes and accumulation steps. Several processes train as one process with the same batch size.
"""

import contextlib
import json
import pathlib

import torch

from rpcnn.box_convention import EDGES, PIXELS
from rpcnn.commands import UserError, output_folder, run, user_errors, wants_help, words_and_options
from rpcnn.config import Config, load_config, to_toml
from rpcnn.data.open import open_dataset
from rpcnn.data.transforms import TrainTransform
from rpcnn.evaluation.trained_model import evaluate
from rpcnn.inference.load import load_weights, place
from rpcnn.inference.pipeline import Pipeline
from rpcnn.info import report
from rpcnn.labels import LabelSet
from rpcnn.metrics import format_table
from rpcnn.model.build import build_model
from rpcnn.runtime import distributed
from rpcnn.runtime.allocator import retain_memory
from rpcnn.runtime.checkpoint import (
    MARK,
    CannotSave,
    check_space,
    load_snapshot,
    new_run_folder,
    remove_partial_files,
    this_launch,
)
from rpcnn.runtime.init_weights import init_from
from rpcnn.runtime.lock import FolderLock
from rpcnn.runtime.logbook import Logbook
from rpcnn.runtime.process import set_up_torch
from rpcnn.training.same_run import changes
from rpcnn.training.signals import Stopped, StopRequest
from rpcnn.training.trainer import Trainer
from rpcnn.training.watch import Watch


def main(arguments: list[str] | None = None) -> pathlib.Path:
    """Run the command; returns the run folder."""
    preset, config = parse(arguments)
    with user_errors():
        device = distributed.start(config.run.device)
    try:
        return train(config, preset, device)
    finally:
        distributed.stop()


def parse(arguments: list[str] | None) -> tuple[str, Config]:
    """Parse the command line into (name of the preset, configuration).

    Raises:
        UserError, SystemExit: an invalid command line, or --help.
    """
    words, options = words_and_options(arguments)
    if len(words) > 1:
        raise UserError(f"train takes one preset or TOML file before its options, got {' '.join(words)}")
    preset = words[0] if words else "painted"
    if wants_help(options):
        print(__doc__)
    with user_errors():
        config = load_config(preset, options)
    return pathlib.Path(preset).stem, config


def train(config: Config, name: str, device: torch.device) -> pathlib.Path:
    """Train and evaluate; returns the run folder.

    Args:
        config: of the run.
        name: of the preset; names the run folder unless run.output is given.
        device: of this process.
    """
    with contextlib.ExitStack() as held:
        with user_errors():
            trainer, watch = set_up(config, name, device, held)
        try:
            trainer.run(watch, held.enter_context(StopRequest()))
        except (FloatingPointError, torch.OutOfMemoryError, CannotSave) as error:
            raise UserError(error) from None
        except Stopped as stopped:
            trainer.log.say(stopped.message)
            raise
        finish(trainer, config)
    return trainer.folder


def set_up(config: Config, name: str, device: torch.device, held: contextlib.ExitStack) -> tuple[Trainer, Watch]:
    """Everything before the first step: the folder, the data, the network, and the state of the run that continues.

    Args:
        held: gets what must be released at the end of the run.

    Raises:
        ValueError, OSError: a mistake of the user, or a file that cannot be read or written; nothing was changed.
    """
    run, settings = config.run, config.train
    share = distributed.world_size() * settings.accumulate
    if settings.batch_size % share:
        raise ValueError(
            f"train.batch_size: must be a multiple of the processes times train.accumulate, {share}, "
            f"got {settings.batch_size}"
        )
    # Chosen once for all processes: by itself, a process could see the folder that another has just created.
    folder, resumed = distributed.on_main(lambda: new_run_folder(run.output, name, run.resume))
    differences = continued(folder, config) if resumed else []
    set_up_torch(run.seed, run.deterministic)
    dataset = open_dataset(config, "train")
    if run.evaluate or run.evaluate_every:
        open_dataset(config, "eval")  # a missing split is an error now, not after training
    labels = dataset.labels
    model = build_model(config, labels.num_classes)
    taken = []
    if settings.init_weights and not resumed:
        taken = init_from(model, load_weights(settings.init_weights), label_set=labels, classes=settings.init_classes)
    model = place(model, device)
    if run.compile:
        for part in (model.backbone, model.fpn):
            part.compile()  # in place, which keeps the state-dict keys

    def take_folder() -> None:
        output_folder(folder)
        held.callback(FolderLock(folder).release)
        remove_partial_files(folder)
        size = sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())
        # Two snapshots and a third while it is written: weights and momentum, twice as much for AdamW; and the weights.
        check_space(folder, size * (3 * (2 if settings.optimizer == "sgd" else 3) + 2))

    distributed.on_main(take_folder)
    state = load_snapshot(folder) if resumed else None
    log = Logbook(folder, enabled=distributed.is_main(), after=state["iteration"] if state else None)
    held.callback(log.close)
    watch = Watch(config, labels, folder, log)
    trainer = Trainer(config, model, dataset, train_transform(config, labels), labels, folder=folder, log=log)
    if state:
        trainer.load(state)
    if distributed.is_main():
        (folder / "config.toml").write_text(to_toml(config), encoding="utf-8")
        (folder / "environment.txt").write_text(report() + "\n", encoding="utf-8")
        (folder / MARK).write_text(json.dumps(this_launch()) + "\n", encoding="utf-8")
    batch = settings.batch_size
    rate = settings.learning_rate * batch / 16
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    log.say(
        f"rpcnn: {f'resuming after iteration {trainer.iteration}' if resumed else 'training'} in {folder}\n"
        f"  data     {len(dataset)} images of {labels.name} in {config.data.root} ({config.data.dataset})\n"
        f"  device   {distributed.world_size()} process(es) on {device}, {torch.get_num_threads()} threads each"
        f"{', freed memory is kept' if retain_memory() else ''}\n"
        f"  model    {config.model.backbone}, {trainable / 1e6:.2f} M trainable parameters, {trainer.dtype or 'fp32'}\n"
        f"  schedule {settings.iterations} iterations of {batch} images, {settings.warmup_iterations} of warm-up, "
        f"rate {settings.learning_rate} · {batch}/16 = {rate:g}, "
        + ("cosine to 0" if settings.decay == "cosine" else f"steps at {list(settings.steps)}")
        + "".join(f"\n  start    {line}" for line in taken)
        + "".join(f"\n  changed  {line}" for line in differences)
    )
    return trainer, watch


def continued(folder: pathlib.Path, config: Config) -> list[str]:
    """Lines about what the configuration changes in the run that it continues.

    Raises:
        ValueError: it changes what a run must keep.
    """
    path = folder / "config.toml"
    if not path.exists():
        return [f"unknown, because {path} is missing"]
    return changes(load_config(path), config)


def finish(trainer: Trainer, config: Config) -> None:
    """Evaluate after the last step, and say where everything is."""
    log, folder, labels = trainer.log, trainer.folder, trainer.label_set
    if config.run.evaluate:
        with user_errors():
            results = evaluate(Pipeline(trainer.model, config, labels), folder)
        log.write({"iteration": trainer.iteration, **{k: v for k, v in results.items() if isinstance(v, float)}})
        log.say(format_table(results, labels))
        log.say(f"rpcnn: weights, results and pictures are in {folder}")


def train_transform(config: Config, labels: LabelSet) -> TrainTransform:
    """The training transform of a configuration."""
    data, variant = config.data, config.variant
    sides = list(variant.short_sides) or tuple(data.short_side)
    boxes = PIXELS if variant.inclusive_boxes else EDGES
    return TrainTransform(sides, data.long_side_max, labels, flip_prob=data.flip_probability, boxes=boxes)


if __name__ == "__main__":
    run(main)
