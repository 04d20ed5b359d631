"""Starting from weights of another run: everything that fits is taken, what belongs to other classes is made new."""

from torch import Tensor, nn

from rpcnn.labels import LabelSet

from .checkpoint import Weights

CLASS_AXES = {
    "gse.logits.weight": 0,
    "gse.logits.bias": 0,
    "parsing_head.logits.weight": 1,
    "parsing_head.logits.bias": 0,
    "prsn.conv1.weight": 1,  # its last channels are the classes, those before them the parsing feature
}
"""The tensors that depend on the classes, and the axis that they lie along."""


def init_from(model: nn.Module, weights: Weights, label_set: LabelSet, classes: str = "new") -> list[str]:
    """Fills a network of `label_set` with weights of another; gives lines for the log, one a tensor that stays new.

    Args:
        model: changed in place; what is not filled keeps its random numbers.
        weights: of a run, of a model.safetensors, or a converted checkpoint.
        classes: where the labels differ, "new" leaves all that depends on them new; "same-names" copies the classes
            whose names are in both.

    Raises:
        ValueError: no tensor of the weights fits.
    """
    same_labels = weights.label_set.names == label_set.names
    pairs = []
    if classes == "same-names":
        theirs = {name.lower(): number for number, name in enumerate(weights.label_set.names)}
        pairs = [(n, theirs[name.lower()]) for n, name in enumerate(label_set.names) if name.lower() in theirs]
    state = dict(model.state_dict())
    filled, lines = 0, []
    for key, mine in state.items():
        given = weights.state.get(key)
        if given is None:
            lines.append(f"new: {key} {list(mine.shape)}, which the weights do not have")
        elif key in CLASS_AXES and not same_labels:
            state[key], fits = _by_class(mine, given, CLASS_AXES[key], label_set.num_classes, weights, pairs)
            filled += fits
            copied = f"; {len(pairs)} classes of the same name copied" if fits and pairs else ""
            lines.append(f"new: {key} {list(mine.shape)}, in the weights {list(given.shape)}{copied}")
        elif given.shape != mine.shape:
            lines.append(f"new: {key} {list(mine.shape)}, in the weights {list(given.shape)}")
        else:
            state[key] = given
            filled += 1
    if not filled:
        raise ValueError("train.init_weights: none of the weights fits this network")
    model.load_state_dict(state)
    unused = [key for key in weights.state if key not in state]
    lines += [f"unused: {key} {list(weights.state[key].shape)}" for key in unused]
    return [f"{filled} of {len(state)} tensors taken", *lines]


def _by_class(mine: Tensor, given: Tensor, axis: int, num_classes: int, weights: Weights, pairs) -> tuple[Tensor, bool]:
    """The tensor with what both have of its classes, and whether the shapes allow it at all."""
    before = mine.shape[axis] - num_classes, given.shape[axis] - weights.label_set.num_classes
    fixed = [size for dim, size in enumerate(mine.shape) if dim != axis]
    if before[0] != before[1] or fixed != [size for dim, size in enumerate(given.shape) if dim != axis]:
        return mine, False
    filled = mine.clone()
    filled.narrow(axis, 0, before[0]).copy_(given.narrow(axis, 0, before[0]))
    for number, theirs in pairs:
        filled.select(axis, before[0] + number).copy_(given.select(axis, before[0] + theirs))
    return filled, bool(before[0] or pairs)
