"""A side of peers.py as its driver sees it."""

import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Sequence

BENCHMARKS = pathlib.Path(__file__).parent.parent


class Side:
    """A process that runs sides.worker. Use it as a context manager.

    Args:
        module: with the functions to time, e.g. sides.powerboxes.
        inputs: .npz file with every case's arrays.
        threads: how many the library may use. It is told in the variables of its environment and as its module says,
            and the process is bound to as many processors.
        interpreter: Python to run.
        folders: where this finds packages before its own.
    """

    def __init__(
        self,
        module: str,
        inputs: pathlib.Path,
        threads: int,
        interpreter: str = sys.executable,
        folders: Sequence[pathlib.Path] = (),
    ):
        self.module = module
        names = [f"{library}_NUM_THREADS" for library in ("OMP", "MKL", "OPENBLAS", "RAYON", "NUMBA")]
        path = os.pathsep.join(map(str, [BENCHMARKS, *folders]))
        environment = os.environ | dict.fromkeys(names, str(threads)) | {"PYTHONPATH": path}
        command = [interpreter, "-m", "sides.worker", module, str(inputs), str(threads)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, cwd=BENCHMARKS
        )

    def ask(self, **request) -> dict:
        """Send a request and wait for the answer, see sides.worker.

        Raises:
            RuntimeError: the side failed or ended.
        """
        try:
            print(json.dumps(request), file=self._process.stdin, flush=True)
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        answer = json.loads(line) if line else {"error": f"the process ended with {self._process.wait()}"}
        if "error" in answer:
            raise RuntimeError(f"{self.module} at {request}: {answer['error']}")
        return answer

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()
