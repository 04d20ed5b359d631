import os
import pathlib

import pytest

# Spinning threads block the cores for other processes: on a busy machine the tests are ten times slower.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from helpers.emulator import shared_folder

# Of the processes of pytest-xdist, there is one for each processor.
torch.set_num_threads(1 if "PYTEST_XDIST_WORKER" in os.environ else min(2, os.cpu_count() or 1))


def pytest_configure(config):
    """Make the folder of the emulator, which the processes of pytest-xdist inherit."""
    os.environ.pop("PYTEST_ADDOPTS", None)  # such as -n, not for the pytest that a test starts
    shared_folder()


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture(params=["compiled", "numpy"])
def core(request, monkeypatch) -> None:
    """Run the test twice: with the compiled rpcnn._labelmaps and rpcnn._metrics, and with the numpy fallback."""
    from rpcnn.labelmaps import compiled
    from rpcnn.metrics import counting

    if request.param == "numpy":
        monkeypatch.setattr(compiled, "core", None)
        monkeypatch.setattr(counting, "_metrics", None)
    elif compiled.core is None or counting._metrics is None:
        pytest.skip("rpcnn._labelmaps or rpcnn._metrics is not built")


@pytest.fixture(scope="session")
def sample_data() -> pathlib.Path:
    """The folder RPCNN_SAMPLE_DATA with cihp_sample/, photos/ and weights/; skip the test if it is not set."""
    folder = os.environ.get("RPCNN_SAMPLE_DATA", "")
    if not folder or not os.path.isdir(folder):
        pytest.skip("RPCNN_SAMPLE_DATA does not name a folder with the CIHP sample")
    return pathlib.Path(folder)
