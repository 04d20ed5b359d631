"""Initializing a model from the weights of another run: what fits is copied, the rest keeps its random values."""

from torch import Tensor, nn

from rpcnn.labels import LabelSet

from .checkpoint import Weights

CLASS_AXES = {
    "gse.logits.weight": 0,
    "gse.logits.bias": 0,
    "parsing_head.logits.weight": 1,
    "parsing_head.logits.bias": 0,
    "prsn.conv1.weight": 1,  # its input channels are the parsing feature, then the classes
}
"""The tensors that depend on the classes, and the dimension of the classes."""


MOST_LINES = 20


def init_from(model: nn.Module, weights: Weights, label_set: LabelSet, classes: str = "new") -> list[str]:
    """Copy weights into a model, in place.

    Args:
        model: tensors that are not copied keep their random values.
        weights: of a run, of a model.safetensors or of a converted checkpoint.
        label_set: of the model.
        classes: for tensors that depend on the classes, if the label sets differ: "new" copies none of them,
            "same-names" copies the classes whose names are in both label sets.

    Returns:
        Lines for the log: the number of copied tensors, a warning if most do not fit, one line for each tensor that
        depends on the classes, and up to `MOST_LINES` for other tensors that are new or unused.

    Raises:
        ValueError: no tensor of the weights fits.
    """
    same_labels = weights.label_set.names == label_set.names
    pairs = []
    if classes == "same-names":
        sources = {name.lower(): number for number, name in enumerate(weights.label_set.names)}
        pairs = [(n, sources[name.lower()]) for n, name in enumerate(label_set.names) if name.lower() in sources]
    state = dict(model.state_dict())
    filled, partly = 0, 0
    of_classes: list[str] = []
    lines: list[str] = []
    for key, current in state.items():
        given = weights.state.get(key)
        if given is None:
            lines.append(f"new: {key} {list(current.shape)}, which the weights do not have")
        elif key in CLASS_AXES and not same_labels:
            state[key], fits = _by_class(
                current, given, axis=CLASS_AXES[key], num_classes=label_set.num_classes, weights=weights, pairs=pairs
            )
            partly += fits
            kind = "partly new" if fits else "new"
            copied = f"; {len(pairs)} classes of the same name copied" if fits and pairs else ""
            of_classes.append(f"{kind}: {key} {list(current.shape)}, in the weights {list(given.shape)}{copied}")
        elif given.shape != current.shape:
            lines.append(f"new: {key} {list(current.shape)}, in the weights {list(given.shape)}")
        else:
            state[key] = given
            filled += 1
    if not filled + partly:
        raise ValueError("train.init_weights: none of the weights fits this network")
    model.load_state_dict(state)
    unused = [key for key in weights.state if key not in state]
    lines += [f"unused: {key} {list(weights.state[key].shape)}" for key in unused]
    head = [f"{filled} of {len(state)} tensors taken" + (f", {partly} more in part" if partly else "")]
    if filled < len(state) / 2:
        head.append("most do not fit: the weights are of another network; train with their run's config.toml instead")
    more = [f"… and {len(lines) - MOST_LINES} more"] if len(lines) > MOST_LINES else []
    return [*head, *of_classes, *lines[:MOST_LINES], *more]


def _by_class(
    current: Tensor, given: Tensor, axis: int, num_classes: int, weights: Weights, pairs
) -> tuple[Tensor, bool]:
    """Copy the class-independent part and the paired classes: the new tensor, and whether anything was copied."""
    before = current.shape[axis] - num_classes, given.shape[axis] - weights.label_set.num_classes
    fixed = [size for dim, size in enumerate(current.shape) if dim != axis]
    if before[0] != before[1] or fixed != [size for dim, size in enumerate(given.shape) if dim != axis]:
        return current, False
    filled = current.clone()
    filled.narrow(axis, 0, before[0]).copy_(given.narrow(axis, 0, before[0]))
    for number, source in pairs:
        filled.select(axis, before[0] + number).copy_(given.select(axis, before[0] + source))
    return filled, bool(before[0] or pairs)
