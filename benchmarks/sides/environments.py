"""An environment of its own for each peer, made by pip in a folder that is kept between runs."""

import importlib.metadata
import os
import pathlib
import shutil
import subprocess
import sys
from dataclasses import dataclass


@dataclass(frozen=True)
class Environment:
    """What a peer needs beside numpy; nothing if it is in our environment."""

    requirements: tuple[str, ...]
    own_torch: bool = False
    """Whether it needs another torch than ours: then it gets an interpreter that does not see our packages."""


PEERS = {
    "powerboxes": Environment(("powerboxes==0.3.1",)),
    "lsnms": Environment(("lsnms==0.5.0",)),
    "onnxruntime": Environment(("onnxruntime==1.32.0", "onnx==1.23.2")),
    "openvino": Environment(("openvino==2026.4.1",)),
    "ipex": Environment(("intel-extension-for-pytorch==2.8.0", "torch==2.8.0"), own_torch=True),
    "pycocotools": Environment(()),
    "faster_coco_eval": Environment(("faster-coco-eval==1.8.0",)),
    "hotcoco": Environment(("hotcoco==1.3.0",)),
}


def title(peer: str) -> str:
    """A peer's name and version."""
    name, _, version = next(iter(PEERS[peer].requirements), peer).partition("==")
    return f"{name} {version or importlib.metadata.version(name)}"


def prepare(peer: str, cache: pathlib.Path) -> tuple[str, list[pathlib.Path]]:
    """Install a peer unless it is there already.

    Returns:
        The interpreter to run it with, and the folders that this must find packages in.

    Raises:
        subprocess.CalledProcessError: pip failed; its messages are on standard error.
    """
    environment, folder = PEERS[peer], (cache / peer).absolute()
    interpreter = str(folder / "bin" / "python") if environment.own_torch else sys.executable
    folders = [] if environment.own_torch or not environment.requirements else [folder]
    wanted, installed = "\n".join([sys.version, *environment.requirements]), folder / "installed.txt"
    if not environment.requirements or (installed.exists() and installed.read_text() == wanted):
        return interpreter, folders
    shutil.rmtree(folder, ignore_errors=True)
    if environment.own_torch:
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    target = [] if environment.own_torch else ["--target", folder]
    command = [interpreter, "-m", "pip", "install", "--quiet", *target, *environment.requirements]
    subprocess.run(
        command, check=True, stdout=sys.stderr, env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    )
    installed.write_text(wanted)
    return interpreter, folders
