"""Parameter groups of the optimizer."""

from torch import nn


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict]:
    """Split the trainable parameters into three groups: weights, biases and norm weights (released code).

    Weight decay applies to weights only. Biases, including those of norms, have twice the learning rate. Each group
    holds params, weight_decay and lr_scale, the factor on the learning rate.
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
