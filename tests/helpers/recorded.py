"""The operators that a call reaches."""

from torch.utils._python_dispatch import TorchDispatchMode


class Recorded(TorchDispatchMode):
    """Record the calls of rpcnn's operators as [(operator, arguments)]."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function.namespace == "rpcnn":
            self.calls.append((function, args))
        return function(*args, **(kwargs or {}))
