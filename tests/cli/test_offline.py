"""No command asks the network for anything."""

import pathlib
import socket

import pytest

from rpcnn.evaluate import main as evaluate
from rpcnn.predict import main as predict
from rpcnn.report import main as report

RUN = pathlib.Path(__file__).parent / "run_of_version_0_1"


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Every name looked up and every connection is an error, and not one that a command catches."""

    def refuse(*arguments, **options):
        pytest.fail(f"the network was asked: {arguments}")

    for owner, name in ((socket, "getaddrinfo"), (socket, "create_connection"), (socket, "gethostbyname")):
        monkeypatch.setattr(owner, name, refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)


def test_parsing_evaluating_and_reporting_need_no_network(tmp_path):
    from rpcnn.data.painted.scene import write_cihp

    write_cihp(tmp_path / "scenes", train=1, val=1, size=(64, 80), seed=3, workers=1)
    picture = next((tmp_path / "scenes/Validation/Images").glob("*.jpg"))
    predict([str(picture), "--weights", str(RUN), "--device", "cpu", "--output", str(tmp_path / "predictions")])
    data = ["--data-root", str(tmp_path / "scenes")]
    assert evaluate(["--predictions", str(tmp_path / "predictions"), *data, "--workers", "1"])["images"] == 1
    options = ["--data.dataset", "cihp", *data, "--data.workers", "0", "--run.device", "cpu"]
    assert evaluate([str(RUN), *options, "--output", str(tmp_path / "evaluation")])["images"] == 1
    assert report([str(tmp_path / "predictions"), "--output", str(tmp_path / "page")]).is_file()
