import os
import pathlib

import pytest
import torch

torch.set_num_threads(min(2, os.cpu_count() or 1))


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture(params=["compiled", "numpy"])
def core(request, monkeypatch) -> None:
    """The test runs with the evaluator's compiled core and with its numpy form."""
    from rpcnn.metrics import counting

    if request.param == "numpy":
        monkeypatch.setattr(counting, "_metrics", None)
    elif counting._metrics is None:
        pytest.skip("rpcnn._metrics is not built")


@pytest.fixture(scope="session")
def sample_data() -> pathlib.Path:
    """The folder with cihp_sample/, photos/ and weights/ that RPCNN_SAMPLE_DATA names; tests skip without it."""
    folder = os.environ.get("RPCNN_SAMPLE_DATA", "")
    if not folder or not os.path.isdir(folder):
        pytest.skip("RPCNN_SAMPLE_DATA does not name a folder with the CIHP sample")
    return pathlib.Path(folder)
