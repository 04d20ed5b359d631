"""What of a model the optimizer trains, and how."""

from torch import nn


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict]:
    """The three groups of the optimizer: weights, biases, norm weights (released code; trainable ones only).

    Weights decay; biases, those of norms included, do not and learn at twice the rate; norm weights do not decay.
    Each group holds params, weight_decay and lr_scale, the factor on the learning rate.
    """
    norms = (nn.GroupNorm, nn.BatchNorm2d, nn.LayerNorm)
    norm_weights = {id(module.weight) for module in model.modules() if isinstance(module, norms)}
    weights, biases, scales = [], [], []
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        kind = biases if name.endswith("bias") else scales if id(parameter) in norm_weights else weights
        kind.append(parameter)
    return [
        {"params": weights, "weight_decay": weight_decay, "lr_scale": 1.0},
        {"params": biases, "weight_decay": 0.0, "lr_scale": 2.0},
        {"params": scales, "weight_decay": 0.0, "lr_scale": 1.0},
    ]
