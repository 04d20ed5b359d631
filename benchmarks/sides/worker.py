"""One side of peers.py in a process of its own: `python -m sides.worker MODULE INPUTS.npz THREADS`.

Reads one JSON request a line from standard input and answers each with one line. {"make": FUNCTION, "case": NAME}
prepares a function of the module with the arrays NAME/… and runs it once; {"result": FILE} saves what the last run
returned; {"time": CALLS} gives the mean seconds of so many calls. An exception is answered by its text.
"""

import importlib
import json
import os
import sys
import time

import numpy as np


class Worker:
    """A library's functions, and the one that was made last."""

    def __init__(self, module: str, inputs: str, threads: int):
        self.module = importlib.import_module(module)
        self.inputs, self.threads = np.load(inputs), threads

    def answer(self, request: dict) -> dict:
        """Do what one request asks for."""
        if "make" in request:
            prefix = request["case"] + "/"
            arrays = {n.removeprefix(prefix): self.inputs[n] for n in self.inputs.files if n.startswith(prefix)}
            self.timed = getattr(self.module, request["make"])(arrays, self.threads)
            self.returned = self.timed.run()
            return {"threads": self.timed.threads}
        if "result" in request:
            np.save(request["result"], self.timed.read(self.returned))
            return {}
        run = self.timed.run
        started = time.perf_counter()
        for _ in range(request["time"]):
            run()
        return {"seconds": (time.perf_counter() - started) / request["time"]}


def main() -> None:
    """Answer until standard input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what libraries print must not stand between the answers
    module, inputs, threads = sys.argv[1:]
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: int(threads)])
    worker = Worker(module, inputs, int(threads))
    for line in sys.stdin:
        try:
            answer = worker.answer(json.loads(line))
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
