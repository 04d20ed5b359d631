"""The training loop."""

import pathlib
import time

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from rpcnn.config import Config
from rpcnn.data.loader import TrainLoader, make_train_loader
from rpcnn.data.sample import Target
from rpcnn.data.transforms import TrainTransform
from rpcnn.labels import LabelSet
from rpcnn.model import RPRCNN
from rpcnn.runtime import distributed
from rpcnn.runtime.checkpoint import EMA_WEIGHTS, WEIGHTS, load_snapshot, save_snapshot, save_weights
from rpcnn.runtime.finite import broken_tensors
from rpcnn.runtime.logbook import Logbook
from rpcnn.runtime.optimizer import parameter_groups
from rpcnn.runtime.precision import autocast_dtype
from rpcnn.runtime.schedule import learning_rate

from .ema import MovingAverage
from .faults import FaultFinder, fill_momentum, skip_if
from .same_run import check_data, fingerprint
from .signals import StopRequest
from .step import Step
from .watch import PREFIX, Watch

MOST_RETURNS = 3
"""How often a run goes back to its last snapshot before it gives up; each time the learning rate is halved."""


class Trainer:
    """Trains a model: all that changes from step to step, and the loop.

    Args:
        config: of the run.
        model: on its device.
        dataset: of the training images.
        transform: of the training images.
        label_set: of the data set.
        folder: of the run.
        log: of the run.
    """

    def __init__(
        self,
        config: Config,
        model: RPRCNN,
        dataset,
        transform: TrainTransform,
        label_set: LabelSet,
        folder: pathlib.Path,
        log: Logbook,
    ):
        settings = config.train
        self.config, self.model, self.label_set, self.folder, self.log = config, model, label_set, folder, log
        self.dataset, self.transform = dataset, transform
        self.device = model.pixel_mean.device
        groups = parameter_groups(model, settings.weight_decay)
        if settings.optimizer == "sgd":
            self.optimizer: torch.optim.Optimizer = torch.optim.SGD(groups, lr=1.0, momentum=0.9, fused=True)
        else:
            self.optimizer = torch.optim.AdamW(groups, lr=1.0, fused=True)
        fill_momentum(self.optimizer)
        self.parameters = [parameter for group in groups for parameter in group["params"]]
        self.dtype = autocast_dtype(config.run.precision, self.device, training=True)
        scaled = self.dtype is torch.float16 and self.device.type == "cuda"
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=scaled)
        self.ema = MovingAverage(model, settings.ema_decay) if settings.ema_decay else None
        self.faults = FaultFinder(self.device)
        self.data = fingerprint(dataset)
        self.iteration, self.returns = 0, 0

    # --- state ---

    def state(self) -> dict:
        """All that a run needs to continue bit for bit."""
        return {
            "iteration": self.iteration,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "ema": self.ema.state_dict() if self.ema else None,
            "returns": self.returns,
            "data": self.data,
        }

    def load(self, state: dict) -> None:
        """Continue from a `state`. Raises ValueError if it is of other training data."""
        check_data(state.get("data"), self.data)
        self.iteration = state["iteration"]
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        if self.ema and state.get("ema"):
            self.ema.load_state_dict(state["ema"])
        elif self.ema:  # a run that had none: it begins with the weights of now
            self.ema.load_state_dict({"model": self.model.state_dict(), "updates": 0})
        self.returns = max(self.returns, state.get("returns", 0))

    def save(self) -> bool:
        """Write a snapshot and the weights; false, and nothing is written, if a number in them is not finite.

        Raises:
            CannotSave: the files cannot be written; older ones are intact.
        """
        state = self.state()
        if broken_tensors({"model": state["model"], "optimizer": state["optimizer"]["state"]}):
            return False
        with distributed.failing_together():
            if distributed.is_main():
                save_snapshot(self.folder, self.iteration, state)
                self.save_weights()
        return True

    def save_weights(self) -> None:
        """Write the weights, and those of the moving average."""
        names = {WEIGHTS: self.model} | ({EMA_WEIGHTS: self.ema.model} if self.ema else {})
        for name, model in names.items():
            save_weights(self.folder / name, model, config=self.config, label_set=self.label_set)

    # --- the loop ---

    def run(self, watch: Watch, stop: StopRequest) -> None:
        """Train to the last iteration, or until the watch finds no progress.

        Raises:
            Stopped: a signal came; a snapshot was written.
            FloatingPointError: too many steps were not finite, also after going back to a snapshot.
            CannotSave: a snapshot cannot be written.
            torch.OutOfMemoryError: see `Step`.
        """
        settings, run = self.config.train, self.config.run
        parallel: torch.nn.Module = self.model
        if distributed.world_size() > 1:
            ids = [self.device.index] if self.device.type == "cuda" else None
            parallel = DistributedDataParallel(self.model, device_ids=ids, gradient_as_bucket_view=True)
        parallel.train()
        step = Step(self.model, parallel, settings.accumulate, self.dtype, scaler=self.scaler, say=self.log.say)
        if self.iteration == 0 and not self.save():
            raise FloatingPointError("the initial weights are not finite; see --backbone-weights and --init-weights")
        if watch.is_due(self.iteration):  # the run was stopped before this evaluation had ended
            self.evaluate(watch, parallel, stop)
        batches = self.loader()
        while self.iteration < settings.iterations:
            self.iteration += 1
            rate = self.set_learning_rate()
            started = time.perf_counter()
            images, targets = to_device(*next(batches), self.device)
            waited = time.perf_counter() - started
            losses = step(images, targets)
            norm, bad = self.update(losses)
            self.log.add(losses, norm, bad, images=len(images) * distributed.world_size(), waited=waited)
            names = [str(target.get("id", "without a name")) for target in targets]
            self.faults.add(self.iteration, bad, losses, names)

            finished = self.iteration == settings.iterations
            if self.iteration % run.log_every == 0 or finished:
                self.log.report(self.iteration, settings.iterations, rate)
            stopping = self.is_stopping(stop)
            saving = self.iteration % run.save_every == 0 or finished or stopping
            evaluating = not finished and watch.is_due(self.iteration)
            if self.has_failed(wait=saving or evaluating) or ((saving or evaluating) and not self.save()):
                self.go_back()
                batches = self.loader()
                continue
            if stopping:
                stop.number = stop.number or stopping
                stop.stop(f"snapshot of iteration {self.iteration} written; --resume auto continues the run")
            if evaluating:
                self.evaluate(watch, parallel, stop)
                if watch.has_stalled():
                    self.log.say(
                        f"rpcnn: no better {run.best_metric} in {run.patience} evaluations; training ends early"
                    )
                    break
        # Running statistics of batch norm differ between processes; the saved weights have those of the main process.
        # This also makes the other processes wait for the weights.
        self.share_buffers()

    def loader(self) -> TrainLoader:
        """The batches from the next iteration on."""
        settings = self.config.train
        return make_train_loader(
            self.dataset,
            self.transform,
            settings.batch_size,
            seed=self.config.run.seed,
            start_iteration=self.iteration,
            num_workers=self.config.data.workers,
            rank=distributed.rank(),
            world_size=distributed.world_size(),
            pin_memory=self.device.type == "cuda",
        )

    def set_learning_rate(self) -> float:
        """Set the optimizer's learning rates for this iteration; returns the base rate."""
        settings = self.config.train
        rate = learning_rate(
            self.iteration,
            base=settings.learning_rate * 0.5**self.returns,
            batch_size=settings.batch_size,
            steps=settings.steps,
            warmup_iterations=settings.warmup_iterations,
            cosine_over=settings.iterations if settings.decay == "cosine" else None,
        )
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["lr_scale"]
        return rate

    def update(self, losses: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """One optimizer step; it changes nothing if a gradient is not finite.

        Returns:
            The norm of the gradient before clipping, and whether the step was skipped for a fault: scalars on the
            device. An overflow of float16 is no fault; the scaler skips it and lowers its scale.
        """
        self.scaler.unscale_(self.optimizer)
        gradients = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        if self.config.train.clip_gradient_norm:
            torch.nn.utils.clip_grads_with_norm_(self.parameters, self.config.train.clip_gradient_norm, norm)
        if self.scaler.is_enabled():
            bad = ~torch.isfinite(torch.stack([value.float() for value in losses.values()])).all()
            bad = distributed.all_reduce_max(bad.float()) > 0
        else:
            bad = ~torch.isfinite(norm)
            skip_if(self.optimizer, bad)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        if self.ema:
            self.ema.update(self.model)
        return norm, bad

    # --- faults, signals, evaluation ---

    def has_failed(self, wait: bool) -> bool:
        """Log the faults of earlier steps; whether more than train.max_skips steps in a row were skipped.

        Args:
            wait: also look at the steps that the device may still be working on.
        """
        faults = self.faults.found(self.iteration + (self.faults.lag if wait else 0))
        for fault in faults:
            self.log.say(fault.text)
        return any(fault.row > self.config.train.max_skips for fault in faults)

    def go_back(self) -> None:
        """Continue from the last snapshot with half the learning rate.

        Raises:
            FloatingPointError: after `MOST_RETURNS` times.
        """
        failed = self.iteration
        self.returns += 1
        if self.returns > MOST_RETURNS:
            raise FloatingPointError(
                f"iteration {failed}: gradients or weights are not finite, also after going back {MOST_RETURNS} times "
                "to a snapshot with half the learning rate. A lower train.learning_rate, a longer "
                "train.warmup_iterations or train.clip_gradient_norm usually helps; the last snapshot is finite."
            )
        self.load(load_snapshot(self.folder))
        self.faults.forget()
        self.log.restart(self.iteration)
        self.log.write({"iteration": self.iteration, "went_back_from": failed, "returns": self.returns})
        self.log.say(
            f"rpcnn: iteration {failed}: gradients or weights are not finite; back to iteration {self.iteration} "
            f"with {0.5**self.returns:g} of the learning rate"
        )

    def is_stopping(self, stop: StopRequest) -> int:
        """The number of a signal that any process got, the same in all of them; 0 without one."""
        return distributed.largest_number(stop.number)

    def evaluate(self, watch: Watch, parallel: torch.nn.Module, stop: StopRequest) -> None:
        """Evaluate the model and its moving average, and go on training."""
        self.share_buffers()
        models = {"": self.model} | ({PREFIX: self.ema.model} if self.ema else {})
        with stop.at_once():  # the snapshot is written
            watch.look(models, self.iteration)
        parallel.train()

    def share_buffers(self) -> None:
        """Give all processes the buffers of the main process."""
        distributed.copy_from_main(self.model.buffers())
        if self.ema:
            distributed.copy_from_main(self.ema.model.buffers())


def to_device(images: list[Tensor], targets: list[Target], device: torch.device) -> tuple[list[Tensor], list[Target]]:
    """Move a batch to the device; copies from pinned memory are asynchronous."""
    move = lambda value: value.to(device, non_blocking=True) if isinstance(value, torch.Tensor) else value
    return [move(image) for image in images], [{key: move(value) for key, value in t.items()} for t in targets]
