"""How the processes of one attempt find each other.

torchrun keeps its store over restarts and changes of hosts (torch 2.11 to 2.14), so the addresses of dead processes
stay in it; a process that reads one waits for a connection that never comes. Here the processes first agree on a prefix
that no earlier attempt had.
"""

import datetime
import time
import uuid
from typing import Any

import torch.distributed as dist

PAUSE = 0.05  # seconds between two looks


def fresh_store(limit: datetime.timedelta) -> tuple[Any, int, int]:
    """The store of this attempt, with this process's rank and the number of processes, from torchrun's environment.

    Raises:
        TimeoutError: not all processes arrived in time.
    """
    store, rank, size = next(dist.rendezvous("env://", timeout=limit))
    return dist.PrefixStore(agree(store, rank, size, limit), store), rank, size


def agree(store: Any, rank: int, size: int, limit: datetime.timedelta) -> str:
    """Agree with the living processes on a new word. What dead ones have left in the store does no harm.

    Every process shows a random word of its own. Rank 0 answers each of them with its word and with its own, until
    all have confirmed that one.

    Raises:
        TimeoutError: as `fresh_store`.
    """
    own = uuid.uuid4().hex
    end = time.monotonic() + limit.total_seconds()
    if rank == 0:
        missing = list(range(1, size))
        while missing:
            for other in missing:
                if store.check([f"rpcnn/word/{other}"]):
                    store.set(f"rpcnn/answer/{other}", f"{store.get(f'rpcnn/word/{other}').decode()} {own}")
            time.sleep(PAUSE)
            missing = [other for other in missing if not store.check([f"rpcnn/{own}/{other}"])]
            if missing and time.monotonic() > end:
                raise TimeoutError(f"processes {', '.join(map(str, missing[:8]))} did not arrive within {limit}")
        return own
    store.set(f"rpcnn/word/{rank}", own)
    while time.monotonic() <= end:
        if store.check([f"rpcnn/answer/{rank}"]):
            mine, word = store.get(f"rpcnn/answer/{rank}").decode().split()
            if mine == own:
                store.set(f"rpcnn/{word}/{rank}", "here")
                return word
        time.sleep(PAUSE)
    raise TimeoutError(f"process 0 did not arrive within {limit}")
