import pathlib
import shutil

import pytest
from PIL import Image

RUN = pathlib.Path(__file__).parents[1] / "cli" / "run_of_version_0_1"


@pytest.fixture
def workshop(tmp_path, monkeypatch) -> pathlib.Path:
    """The working folder that the pages speak of: pictures and a run folder, whose network is a tiny one."""
    run = tmp_path / "runs" / "painted"
    run.mkdir(parents=True)
    for name in ("config.toml", "model.safetensors"):
        shutil.copy(RUN / name, run)
    (tmp_path / "holiday").mkdir()
    scene = Image.open(RUN / "scene.png").convert("RGB")
    for name in ("photo.jpg", "0001.jpg", "holiday/beach.jpg"):
        scene.save(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path
