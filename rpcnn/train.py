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
import pathlib
import time

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from rpcnn.box_convention import EDGES, PIXELS
from rpcnn.commands import UserError, output_folder, user_errors, wants_help, words_and_options
from rpcnn.config import Config, load_config, to_toml
from rpcnn.data.loader import make_train_loader
from rpcnn.data.open import open_dataset
from rpcnn.data.sample import Target
from rpcnn.data.transforms import TrainTransform
from rpcnn.evaluation.trained_model import evaluate
from rpcnn.inference.load import place
from rpcnn.inference.pipeline import Pipeline
from rpcnn.info import report
from rpcnn.labels import LabelSet
from rpcnn.metrics import format_table
from rpcnn.model.build import build_model
from rpcnn.runtime import distributed
from rpcnn.runtime.checkpoint import WEIGHTS, load_snapshot, load_weights, new_run_folder, save_snapshot, save_weights
from rpcnn.runtime.init_weights import init_from
from rpcnn.runtime.logbook import Logbook
from rpcnn.runtime.optimizer import parameter_groups
from rpcnn.runtime.precision import autocast, autocast_dtype
from rpcnn.runtime.process import set_up_torch
from rpcnn.runtime.schedule import learning_rate


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
    run, settings = config.run, config.train
    with user_errors():
        share = distributed.world_size() * settings.accumulate
        if settings.batch_size % share:
            raise ValueError(
                f"train.batch_size: must be a multiple of the processes times train.accumulate, {share}, "
                f"got {settings.batch_size}"
            )
        # Chosen once for all processes: by itself, a process could see the folder that another has just created.
        folder, resumed = distributed.on_main(lambda: new_run_folder(run.output, name, run.resume))
        set_up_torch(run.seed, run.deterministic)
        dataset = open_dataset(config, "train")
        if run.evaluate:
            open_dataset(config, "eval")  # a missing split is an error now, not after training
        labels = dataset.labels
        model = build_model(config, labels.num_classes)
        distributed.on_main(lambda: output_folder(folder))
        taken = []
        if settings.init_weights and not resumed:
            taken = init_from(
                model, load_weights(settings.init_weights), label_set=labels, classes=settings.init_classes
            )
    transform = train_transform(config, labels)
    model = place(model, device)
    if run.compile:
        for part in (model.backbone, model.fpn):
            part.compile()  # in place, which keeps the state-dict keys
    groups = parameter_groups(model, settings.weight_decay)
    if settings.optimizer == "sgd":
        optimizer = torch.optim.SGD(groups, lr=1.0, momentum=0.9, fused=True)
    else:
        optimizer = torch.optim.AdamW(groups, lr=1.0, fused=True)
    dtype = autocast_dtype(run.precision, device, training=True)
    scaler = torch.amp.GradScaler(device.type, enabled=dtype is torch.float16 and device.type == "cuda")

    iteration = 0
    if resumed:
        state = load_snapshot(folder)
        iteration = state["iteration"]
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        scaler.load_state_dict(state["scaler"])
    log = Logbook(folder, enabled=distributed.is_main())
    if distributed.is_main():
        (folder / "config.toml").write_text(to_toml(config), encoding="utf-8")
        (folder / "environment.txt").write_text(report() + "\n", encoding="utf-8")
    batch = settings.batch_size
    rate = settings.learning_rate * batch / 16
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    log.say(
        f"rpcnn: {'resuming' if resumed else 'training'} in {folder}\n"
        f"  data     {len(dataset)} images of {labels.name} in {config.data.root} ({config.data.dataset})\n"
        f"  device   {distributed.world_size()} process(es) on {device}, {torch.get_num_threads()} threads each\n"
        f"  model    {config.model.backbone}, {trainable / 1e6:.2f} M trainable parameters, {dtype or 'fp32'}\n"
        f"  schedule {settings.iterations} iterations of {batch} images, {settings.warmup_iterations} of warm-up, "
        f"rate {settings.learning_rate} · {batch}/16 = {rate:g}, "
        + ("cosine to 0" if settings.decay == "cosine" else f"steps at {list(settings.steps)}")
        + "".join(f"\n  start    {line}" for line in taken)
    )

    parallel = model
    if distributed.world_size() > 1:
        ids = [device.index] if device.type == "cuda" else None
        parallel = DistributedDataParallel(model, device_ids=ids, gradient_as_bucket_view=True)
    parallel.train()
    with user_errors():  # a class of the user's may load its images only now
        loader = make_train_loader(
            dataset,
            transform,
            batch // settings.accumulate,
            seed=run.seed,
            start_iteration=iteration * settings.accumulate,
            num_workers=config.data.workers,
            rank=distributed.rank(),
            world_size=distributed.world_size(),
            pin_memory=device.type == "cuda",
        )
    batches = iter(loader)
    while iteration < settings.iterations:
        iteration += 1
        lr = learning_rate(
            iteration,
            base=settings.learning_rate,
            batch_size=batch,
            steps=settings.steps,
            warmup_iterations=settings.warmup_iterations,
            cosine_over=settings.iterations if settings.decay == "cosine" else None,
        )
        for group in optimizer.param_groups:
            group["lr"] = lr * group["lr_scale"]
        for part in range(settings.accumulate):
            started = time.perf_counter()
            images, targets = next(batches)
            images, targets = to_device(images, targets, device)
            waited = time.perf_counter() - started
            last = part == settings.accumulate - 1
            hold = contextlib.nullcontext() if last or parallel is model else parallel.no_sync()
            with hold:
                with autocast(device, dtype):
                    losses = parallel(images, targets)
                scaler.scale(sum(losses.values()) / settings.accumulate).backward()
            log.add(losses, len(images) * distributed.world_size(), waited)
        if settings.clip_gradient_norm:
            scaler.unscale_(optimizer)
            torch.nn.utils.clip_grad_norm_(model.parameters(), settings.clip_gradient_norm)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad(set_to_none=True)

        finished = iteration == settings.iterations
        if iteration % run.log_every == 0 or finished:
            log.report(iteration, settings.iterations, lr)
        if (iteration % run.save_every == 0 or finished) and distributed.is_main():
            state = {
                "iteration": iteration,
                "model": model.state_dict(),
                "optimizer": optimizer.state_dict(),
                "scaler": scaler.state_dict(),
            }
            save_snapshot(folder, iteration, state)
            save_weights(folder / WEIGHTS, model, config=config, label_set=labels)
    # Running statistics of batch norm differ between processes; the saved weights have those of the main process. This
    # also makes the other processes wait for the weights.
    distributed.copy_from_main(model.buffers())
    if run.evaluate:
        results = evaluate(Pipeline(model, config, labels), folder)
        if distributed.is_main():
            log.write({"iteration": iteration, **{k: v for k, v in results.items() if isinstance(v, float)}})
            log.say(format_table(results, labels))
            log.say(f"rpcnn: weights, results and pictures are in {folder}")
    log.close()
    return folder


def train_transform(config: Config, labels: LabelSet) -> TrainTransform:
    """The training transform of a configuration."""
    data, variant = config.data, config.variant
    sides = list(variant.short_sides) or tuple(data.short_side)
    boxes = PIXELS if variant.inclusive_boxes else EDGES
    return TrainTransform(sides, data.long_side_max, labels, flip_prob=data.flip_probability, boxes=boxes)


def to_device(images: list[Tensor], targets: list[Target], device: torch.device) -> tuple[list[Tensor], list[Target]]:
    """Move a batch to the device; copies from pinned memory are asynchronous."""
    move = lambda value: value.to(device, non_blocking=True) if isinstance(value, torch.Tensor) else value
    return [move(image) for image in images], [{key: move(value) for key, value in t.items()} for t in targets]


if __name__ == "__main__":
    main()
