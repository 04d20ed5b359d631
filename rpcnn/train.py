"""Trains RP R-CNN: ``python -m rpcnn.train [config] [--key value …]``.

config is a TOML file or the name of a preset (configs/*.toml); without it the embedded default runs: it paints
scenes of people, trains a small network on them, evaluates it on scenes it has not seen and writes pictures. Every
field of the configuration can be given on the command line (--train.iterations 1000, or short: --iterations 1000);
--help lists them all.

    python -m rpcnn.train                                          the embedded default, minutes on two CPU cores
    python -m rpcnn.train cihp_r50 --data-root /data/CIHP --backbone-weights resnet50.pth
    torchrun --nproc_per_node=8 -m rpcnn.train cihp_r50 --data-root /data/CIHP
    python -m rpcnn.train cihp_r50 --output runs/mine --resume auto   continues an interrupted run, bit for bit

Learning rate: train.learning_rate is for 16 images a step and scales with train.batch_size, which counts the images
of all processes and accumulation steps. Two processes train on exactly what one process with the same batch would.
"""

import contextlib
import os
import pathlib
import random
import sys
import time

import numpy as np
import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from rpcnn.config import Config, load_config, to_toml
from rpcnn.data.loader import make_train_loader
from rpcnn.data.open import open_dataset
from rpcnn.data.sample import Target
from rpcnn.data.transforms import TrainTransform
from rpcnn.evaluate import evaluate, format_report
from rpcnn.info import report
from rpcnn.model import RPRCNN
from rpcnn.runtime import distributed
from rpcnn.runtime.checkpoint import WEIGHTS, load_snapshot, new_run_folder, save_snapshot, save_weights
from rpcnn.runtime.logbook import Logbook
from rpcnn.runtime.optimizer import parameter_groups
from rpcnn.runtime.precision import autocast, autocast_dtype
from rpcnn.runtime.schedule import learning_rate


def main(arguments: list[str] | None = None) -> pathlib.Path:
    """Runs the command line; returns the run folder."""
    preset, config = parse(sys.argv[1:] if arguments is None else arguments)
    device = distributed.start(config.run.device)
    try:
        return train(config, preset, device)
    finally:
        distributed.stop()


def parse(arguments: list[str]) -> tuple[str, Config]:
    """(name of the preset, resolved configuration) of a command line; a bad one ends the process with the reason."""
    preset = arguments[0] if arguments and not arguments[0].startswith("-") else "painted"
    overrides = arguments[1:] if preset is not None and arguments and arguments[0] == preset else arguments
    if {"-h", "--help"} & set(overrides):
        print(__doc__)
    try:
        config = load_config(preset, overrides)
    except ValueError as error:
        sys.exit(f"rpcnn: {error}")
    return pathlib.Path(preset).stem, config


def train(config: Config, name: str, device: torch.device) -> pathlib.Path:
    """Trains, evaluates and draws; returns the run folder."""
    run, knobs = config.run, config.train
    try:
        folder, resumed = new_run_folder(run.output, name, run.resume)
        folder = pathlib.Path(distributed.gather_objects(str(folder))[0])  # ranks may race for the next free name
        set_up_torch(config)
        dataset = open_dataset(config, "train")
        model = RPRCNN.from_config(config)
    except (ValueError, OSError) as error:  # a file or folder that the command line names
        sys.exit(f"rpcnn: {error}")
    transform = train_transform(config)
    model = model.to(device)
    if run.channels_last:
        model = model.to(memory_format=torch.channels_last)
    groups = parameter_groups(model, knobs.weight_decay)
    if knobs.optimizer == "sgd":
        optimizer = torch.optim.SGD(groups, lr=1.0, momentum=knobs.momentum, fused=True)
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
    batch = knobs.batch_size
    rate = knobs.learning_rate * batch / 16
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    log.say(
        f"rpcnn: {'resuming' if resumed else 'training'} in {folder}\n"
        f"  data     {len(dataset)} images of {config.data.dataset}\n"
        f"  device   {distributed.world_size()} process(es) on {device}, {torch.get_num_threads()} threads each\n"
        f"  model    {config.model.backbone}, {trainable / 1e6:.2f} M trainable parameters, {dtype or 'fp32'}\n"
        f"  schedule {knobs.iterations} iterations of {batch} images, {knobs.warmup_iterations} of warm-up, "
        f"rate {knobs.learning_rate} · {batch}/16 = {rate:g}, "
        + ("cosine to 0" if knobs.decay == "cosine" else f"steps at {list(knobs.steps)}")
    )

    parallel = model
    if distributed.world_size() > 1:
        ids = [device.index] if device.type == "cuda" else None
        parallel = DistributedDataParallel(model, device_ids=ids, gradient_as_bucket_view=True)
    if run.compile:
        parallel = torch.compile(parallel)
    parallel.train()
    loader = make_train_loader(
        dataset,
        transform,
        batch // knobs.accumulate,
        seed=run.seed,
        start_iteration=iteration * knobs.accumulate,
        num_workers=config.data.workers,
        rank=distributed.rank(),
        world_size=distributed.world_size(),
        pin_memory=device.type == "cuda",
    )
    batches = iter(loader)
    while iteration < knobs.iterations:
        iteration += 1
        lr = learning_rate(
            iteration,
            knobs.learning_rate,
            batch,
            knobs.steps,
            knobs.warmup_iterations,
            knobs.warmup_factor,
            knobs.iterations if knobs.decay == "cosine" else None,
        )
        for group in optimizer.param_groups:
            group["lr"] = lr * group["lr_scale"]
        for part in range(knobs.accumulate):
            started = time.perf_counter()
            images, targets = next(batches)
            images, targets = to_device(images, targets, device)
            waited = time.perf_counter() - started
            last = part == knobs.accumulate - 1
            hold = contextlib.nullcontext() if last or parallel is model else parallel.no_sync()
            with hold:
                with autocast(device, dtype):
                    losses = parallel(images, targets)
                scaler.scale(sum(losses.values()) / knobs.accumulate).backward()
            log.add(losses, len(images) * distributed.world_size(), waited)
        if knobs.clip_gradient_norm:
            scaler.unscale_(optimizer)
            torch.nn.utils.clip_grad_norm_(model.parameters(), knobs.clip_gradient_norm)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad(set_to_none=True)

        finished = iteration == knobs.iterations
        if iteration % run.log_every == 0 or finished:
            log.report(iteration, knobs.iterations, lr)
        if (iteration % run.save_every == 0 or finished) and distributed.is_main():
            state = {
                "iteration": iteration,
                "model": model.state_dict(),
                "optimizer": optimizer.state_dict(),
                "scaler": scaler.state_dict(),
            }
            save_snapshot(folder, iteration, state)
            save_weights(folder / WEIGHTS, model, config)
    distributed.barrier()
    if run.evaluate:
        results = evaluate(model, config, device, folder=folder, pictures=config.test.pictures)
        if distributed.is_main():
            log.write({"iteration": iteration, **{k: v for k, v in results.items() if isinstance(v, float)}})
            log.say(format_report(results, config.labels))
            log.say(f"rpcnn: weights, results and pictures are in {folder}")
    log.close()
    return folder


def train_transform(config: Config) -> TrainTransform:
    """The augmentation of a configuration."""
    data = config.data
    sides = list(data.short_sides) or (data.short_side_min, data.short_side_max)
    return TrainTransform(sides, data.long_side_max, config.labels, data.flip_probability, config.model.inclusive_boxes)


def set_up_torch(config: Config) -> None:
    """Seeds, threads and determinism of this process."""
    run = config.run
    random.seed(run.seed)
    np.random.seed(run.seed % 2**32)
    torch.manual_seed(run.seed)
    torch.set_float32_matmul_precision("high")
    if run.threads:
        torch.set_num_threads(run.threads)
    if run.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
        torch.backends.cudnn.benchmark = False


def to_device(images: list[Tensor], targets: list[Target], device: torch.device) -> tuple[list[Tensor], list[Target]]:
    """The batch on the device; host copies are asynchronous where the loader pinned them."""
    move = lambda value: value.to(device, non_blocking=True) if isinstance(value, torch.Tensor) else value
    return [move(image) for image in images], [{key: move(value) for key, value in t.items()} for t in targets]


if __name__ == "__main__":
    main()
