"""The paper's CIHP network at full size on the CPU: configs/cihp_r50.toml, ResNet-50, every width as published."""

import pytest
import torch

from rpcnn.config import load_config
from rpcnn.data.painted.scene import paint_scene
from rpcnn.inference.pipeline import Pipeline
from rpcnn.labels import CIHP
from rpcnn.model import RPRCNN
from rpcnn.runtime.optimizer import parameter_groups


@pytest.mark.slow
def test_one_training_step_and_one_prediction():
    torch.manual_seed(0)
    config = load_config("cihp_r50")
    model = RPRCNN.from_config(config).to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.SGD(parameter_groups(model, config.train.weight_decay), lr=0.002, momentum=0.9)
    sample = paint_scene(3, 512, 704, people=4)
    image = sample.pop("image")
    losses = model([image], [sample | {"seed": 1}])
    assert all(torch.isfinite(loss) for loss in losses.values())
    sum(losses.values()).backward()
    without = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert without == []
    optimizer.step()

    picture = paint_scene(4, 600, 800, people=3)["image"]
    result = Pipeline(model, config, CIHP)(picture)  # the network's input is 800×1067
    assert list(result.label_map.shape) == [600, 800]
    assert list(result.person_maps.shape) == [len(result), 600, 800]
