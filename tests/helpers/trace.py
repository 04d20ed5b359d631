"""Every op of a step on a GPU that is not there: name, dtypes, memory formats, bytes, launches, synchronizations.

    cd tests && python -m helpers.trace            the paper's training step and a prediction, by part

`FakeTensorMode` gives CUDA tensors without values. Without a GPU it errs in some places, which are set right here:

- `autocast("cuda")` switches itself off, and the ops of rpcnn take their references without `rpcnn._C_cuda`.
- A convolution in bfloat16 is said to take a slow kernel that returns contiguous maps. cuDNN returns channels_last if
  its input or its weight is channels_last (`cudnn_conv_suggest_memory_format`), as the fake kernel says in float16.
- `scaled_dot_product_attention` is said to have no fused kernel. The memory-efficient one takes any head dimension that
  is a multiple of 8, in all dtypes, with 4-dimensional inputs (`sdp_utils.cpp`); for others nothing is assumed.
- `tolist` reads number by number, not all in one copy.
- Autograd's engine asks the device for its streams. `backward` calls the nodes of the graph in its place.
"""

import collections
import contextlib
import pathlib
import sys
from typing import NamedTuple
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor
from torch._subclasses import FakeTensor, FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from rpcnn.config import Config
from rpcnn.inference.pipeline import Pipeline
from rpcnn.labels import LabelSet
from rpcnn.model import RPRCNN
from rpcnn.model.build import build_model
from rpcnn.ops import _library

PACKAGE = str(pathlib.Path(_library.__file__).parents[1])
ATEN = torch.ops.aten
CONVOLUTIONS = {ATEN.convolution, ATEN.convolution_backward}
COPIES = {ATEN._to_copy, ATEN.copy_}
# What returns a number, or a size that depends on values, makes the host wait for the device.
READS = {
    *(ATEN._local_scalar_dense, ATEN.nonzero, ATEN.masked_select, ATEN.equal, ATEN.is_nonzero, ATEN.repeat_interleave),
    *(ATEN._unique2, ATEN.unique_dim, ATEN.bincount, torch.ops.rpcnn.nms),
}
# Ops without a kernel that do not say so in their schema: no memory is read or written.
NO_KERNEL = {
    *(ATEN.empty, ATEN.empty_like, ATEN.new_empty, ATEN.empty_strided, ATEN.new_empty_strided, ATEN._unsafe_view),
    *(ATEN.lift_fresh, ATEN.promote_types, ATEN._reshape_alias, ATEN.result_type),
}


class Spec(NamedTuple):
    """A tensor without its values."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    layout: str  # of 4-dimensional tensors: "channels_last", "contiguous", "any" (both) or "strided"; else ""
    device: str

    @property
    def bytes(self) -> int:
        return torch.Size(self.shape).numel() * self.dtype.itemsize

    def __str__(self):
        return f"{str(self.dtype)[6:]}{list(self.shape)} {self.layout}".strip()


class Op(NamedTuple):
    """A dispatched op."""

    name: str  # "aten.convolution"
    inputs: list[Spec]
    outputs: list[Spec]
    part: str  # of the network, or ""
    line: str  # of rpcnn that called it, "model/fpn.py:35", or the node of autograd's graph
    launches: bool  # False for views and allocations
    syncs: bool  # whether the host waits for the device

    def __str__(self):
        shown = lambda specs: ", ".join(map(str, specs))
        return f"{self.name} ({shown(self.inputs)}) -> ({shown(self.outputs)}) in {self.part or '-'} at {self.line}"


class Trace(TorchDispatchMode):
    """Records the ops that run inside it, in order, as `ops`; see the module.

    Args:
        count: the value of all integers that are read on the host. Reading other values raises.
    """

    def __init__(self, count: int = 3):
        super().__init__()
        self.ops: list[Op] = []
        self.part, self.node, self.count = "", "", count
        self.functions = _Attention()

    def __enter__(self):
        self.functions.__enter__()
        return super().__enter__()

    def __exit__(self, *error):
        super().__exit__(*error)
        self.functions.__exit__(*error)

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function.namespace == "prim":
            return function(*args, **kwargs)
        packet, inputs = function.overloadpacket, specs((args, kwargs))
        try:
            if packet is ATEN._local_scalar_dense and not inputs[0].dtype.is_floating_point:
                result = self.count
            else:
                result = function(*args, **kwargs)
        except Exception:
            self.record(str(packet), inputs, [], syncs=True)
            raise
        if packet in CONVOLUTIONS:
            first = 1 if packet is ATEN.convolution_backward else 0  # after the gradient
            result = tree_map_only(Tensor, as_cudnn(args[first : first + 2]), result)
        outputs = specs(result)
        # Ops take numbers from the host as arguments of the kernel, so only a copy moves a tensor without dimensions.
        devices = {tensor.device for tensor in (*inputs, *outputs) if tensor.shape or packet in COPIES}
        waits = not (kwargs.get("non_blocking") or (packet is ATEN.copy_ and args[2:] == (True,)))
        reads = packet in READS and any(tensor.device == "cuda" for tensor in inputs)
        syncs = reads or (len(devices) > 1 and waits)
        self.record(str(packet), inputs, outputs, launches=has_kernel(function), syncs=syncs)
        return result

    def record(self, name, inputs, outputs, launches=True, syncs=False):
        line = self.node or calling_line()
        self.ops.append(Op(name, inputs, outputs, part=self.part, line=line, launches=launches, syncs=syncs))

    @contextlib.contextmanager
    def parts(self, methods):
        """While inside, ops that run in methods {name of the part: (object, attribute)} carry the name of the part."""
        with contextlib.ExitStack() as stack:
            for name, (owner, attribute) in methods.items():
                stack.enter_context(mock.patch.object(owner, attribute, self._within(name, getattr(owner, attribute))))
            yield

    def _within(self, name, method):
        def call(*args, **kwargs):
            outer, self.part = self.part, name
            try:
                return method(*args, **kwargs)
            finally:
                self.part = outer

        return call

    def backward(self, loss: Tensor) -> None:
        """What loss.backward() does, node by node in the order of the engine; gradients are kept nowhere."""
        self.part = "backward"
        first, waiting = loss.grad_fn, collections.Counter()
        seen, stack = {first}, [first]
        while stack:
            for following, _ in stack.pop().next_functions:
                if following is not None:
                    waiting[following] += 1
                    if following not in seen:
                        seen.add(following)
                        stack.append(following)
        gradients = {first: {0: torch.ones_like(loss)}}
        ready = [first]
        with torch.no_grad():
            while ready:
                node = max(ready, key=lambda node: node._sequence_nr())
                ready.remove(node)
                self.node = node.name()
                for (following, index), result in zip(*results_by_edge(node, gradients.pop(node, {})), strict=True):
                    if result is not None:
                        slots = gradients.setdefault(following, {})
                        slots[index] = slots[index] + result if index in slots else result
                    waiting[following] -= 1
                    if not waiting[following]:
                        ready.append(following)
        self.part = self.node = ""


def results_by_edge(node, arrived: dict[int, Tensor]) -> tuple[list, list]:
    """Call a node with the gradients that arrived: the edges to the nodes after it, and the gradient along each."""
    edges = [edge for edge in node.next_functions if edge[0] is not None]
    if not arrived or not edges:  # a leaf takes over its gradient without a copy
        return edges, [None] * len(edges)
    inputs = [arrived.get(i) for i in range(len(node._input_metadata))]
    if callable(node):
        results = node(*inputs)
        results = results if isinstance(results, tuple) else (results,)
        return edges, [result for result, edge in zip(results, node.next_functions, strict=True) if edge[0] is not None]
    results = node.apply(*inputs)  # a node in Python; it also returns None for arguments that are no tensors
    return edges, [result for result, needed in zip(results, node.needs_input_grad, strict=True) if needed]


class _Attention(TorchFunctionMode):
    """Takes the memory-efficient attention for 4-dimensional inputs."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function is F.scaled_dot_product_attention and args[0].is_cuda and args[0].dim() == 4 and not kwargs:
            query, key, value = args
            kept = torch.is_grad_enabled() and query.requires_grad
            return ATEN._scaled_dot_product_efficient_attention(query, key, value, None, kept)[0]
        return function(*args, **kwargs)


def specs(values) -> list[Spec]:
    """The tensors among the values."""
    return [spec(value) for value in tree_leaves(values) if isinstance(value, Tensor)]


def spec(tensor: Tensor) -> Spec:
    layout = ""
    if tensor.dim() == 4:
        last, first = (tensor.is_contiguous(memory_format=f) for f in (torch.channels_last, torch.contiguous_format))
        layout = "any" if last and first else "channels_last" if last else "contiguous" if first else "strided"
    return Spec(tuple(tensor.shape), tensor.dtype, layout, tensor.device.type)


def as_cudnn(inputs):
    """Give 4-dimensional results the memory format that cuDNN returns for this input and weight of a convolution."""
    on_cudnn = all(x.is_cuda and x.dim() == 4 and x.dtype != torch.float64 for x in inputs)
    last = any(spec(x).layout == "channels_last" for x in inputs)
    layout = torch.channels_last if last else torch.contiguous_format
    return lambda result: result.contiguous(memory_format=layout) if result.dim() == 4 and on_cudnn else result


def has_kernel(function) -> bool:
    views = any(r.alias_info is not None and not r.alias_info.is_write for r in function._schema.returns)
    return not views and function.overloadpacket not in NO_KERNEL


def calling_line() -> str:
    """The innermost line of rpcnn that is running."""
    frame = sys._getframe(1)
    while frame is not None:
        file = frame.f_code.co_filename
        if file.startswith(PACKAGE):
            return f"{file[len(PACKAGE) + 1 :]}:{frame.f_lineno}"
        frame = frame.f_back
    return ""


# --- the steps that are traced ---------------------------------------------------------------------------------------

IMAGES, HEIGHT, WIDTH, PEOPLE = 2, 800, 1216, 6


@contextlib.contextmanager
def fake_gpu():
    """Fake CUDA tensors, on which autocast and the ops of rpcnn work as on a GPU that knows bfloat16."""
    with (
        mock.patch("torch.cuda.amp.common.amp_definitely_not_available", lambda: False),
        mock.patch("torch.cuda.is_bf16_supported", lambda *_: True),
        mock.patch("torch.inference_mode", no_grad_instead),
        mock.patch.object(_library, "CUDA_MISSING", None),
        mock.patch.object(FakeTensor, "tolist", lambda tensor: [value.item() for value in tensor.cpu()]),
        FakeTensorMode(),
    ):
        yield


def no_grad_instead(on: bool = True, inference_mode=torch.inference_mode):
    """torch.inference_mode hides from a dispatch mode what composite ops consist of."""
    return torch.no_grad() if on else inference_mode(False)


def network(config: Config | None = None, num_classes: int = 20, device: str = "cuda") -> RPRCNN:
    """The network in the memory format channels_last, as `rpcnn.inference.load.place` gives it."""
    with torch.device(device):
        model = build_model(config or Config(), num_classes=num_classes)
    for module in model.modules():  # Module.to would swap parameters, which fake ones refuse
        for name, parameter in module._parameters.items():
            if parameter is not None and parameter.dim() == 4:
                data = parameter.detach().contiguous(memory_format=torch.channels_last)
                module._parameters[name] = torch.nn.Parameter(data, requires_grad=parameter.requires_grad)
    return model


def batch(people=(PEOPLE,) * IMAGES, size=(HEIGHT, WIDTH), device: str = "cuda"):
    """Images and targets as the loader puts them on the device."""
    with torch.device(device):
        images = [torch.zeros(3, *size, dtype=torch.uint8) for _ in people]
        targets = [
            {
                "boxes": torch.zeros(n, 4),
                "person_maps": torch.zeros(n, *size, dtype=torch.uint8),
                "label_map": torch.zeros(size, dtype=torch.uint8),
            }
            for n in people
        ]
    return images, targets


def training_step(dtype: torch.dtype | None, config: Config | None = None) -> Trace:
    """Trace the forward and the backward pass of the paper's training step, fp32 if dtype is None."""
    with fake_gpu():
        model, inputs = network(config).train(), batch()
        parts = {
            "encode": (model, "encode"),
            "rpn": (model.rpn, "forward"),
            "propose": (model.rpn, "propose"),
            "rpn loss": (model.rpn, "loss"),
            "sample": (model.box_head, "sample"),
            "box": (model.box_head, "forward"),
            "box loss": (model.box_head, "loss"),
            "targets": (model.parsing_head, "sample"),
            "parse": (model.parsing_head, "forward"),
            "losses": (model, "terms"),
        }

        def step():
            with torch.autocast("cuda", dtype or torch.bfloat16, enabled=dtype is not None):
                return model(*inputs)

        step()  # what is computed once is not part of a step
        with Trace() as trace, trace.parts(parts):
            losses = step()
            trace.backward(sum(losses.values()))
    return trace


def prediction(dtype: torch.dtype | None, config: Config | None = None, images: int = 1, size=(HEIGHT, WIDTH)) -> Trace:
    """Trace a prediction, from images on the host to maps on the device, with `Trace.count` people in each image."""
    config = config or Config()
    labels = LabelSet("nobody", tuple(f"label {i}" for i in range(20)))
    with fake_gpu():
        pipeline = Pipeline(network(config), config, labels)
        pipeline.dtype = dtype
        model = pipeline.model
        parts = {
            "encode": (model, "encode"),
            "rpn": (model.rpn, "forward"),
            "propose": (model.rpn, "propose"),
            "box": (model.box_head, "forward"),
            "detect": (model.box_head, "detect"),
            "parse": (model, "parse"),
            "global": (model, "label_probabilities"),
            "combine": (pipeline, "finish"),
        }
        predict = lambda: list(pipeline.stream([torch.zeros(3, *size, dtype=torch.uint8)] * images, images))
        with Trace():
            predict()  # what is computed once is not part of a prediction
        with Trace() as trace, trace.parts(parts):
            predict()
    return trace


def table(trace: Trace) -> str:
    """Launches, bytes of inputs and outputs and synchronizations by part, as a Markdown table."""
    parts = dict.fromkeys(op.part for op in trace.ops)
    lines = ["| part | launches | of rpcnn | copies | MB | synchronizations |", "|---|---:|---:|---:|---:|---:|"]
    for part in [*parts, None]:
        ops = [op for op in trace.ops if part in (op.part, None)]
        launched = [op for op in ops if op.launches]
        own = sum(op.name.startswith("rpcnn") for op in launched)
        copies = sum(op.name in ("aten._to_copy", "aten.clone", "aten.copy_") for op in launched)
        size = sum(t.bytes for op in launched for t in (*op.inputs, *op.outputs)) / 1e6
        name = "**all**" if part is None else part or "the rest"
        lines.append(f"| {name} | {len(launched)} | {own} | {copies} | {size:,.0f} | {sum(op.syncs for op in ops)} |")
    return "\n".join(lines)


def main() -> None:
    for dtype in (torch.bfloat16, None):
        print(f"\nTraining step, {IMAGES} images of {HEIGHT} x {WIDTH} with {PEOPLE} people, {dtype or 'float32'}\n")
        print(table(training_step(dtype)))
    print("\nPrediction, 1 image with 3 people, torch.float32\n")
    print(table(prediction(None)))


if __name__ == "__main__":
    main()
