"""Processes agree on a word although the store is full of what dead ones have left."""

import datetime
import threading

import pytest
import torch.distributed as dist

from rpcnn.runtime.rendezvous import agree

LIMIT = datetime.timedelta(seconds=20)


def run(store, size):
    words = {}
    threads = [
        threading.Thread(target=lambda rank=rank: words.__setitem__(rank, agree(store, rank, size, LIMIT)))
        for rank in reversed(range(size))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return words


def test_every_attempt_has_its_own_word():
    store = dist.HashStore()
    first, second = run(store, 4), run(store, 4)
    assert len(set(first.values())) == len(set(second.values())) == 1
    assert len(first) == 4 and first[0] != second[0]


def test_a_dead_process_that_was_answered_is_waited_for_no_longer():
    store = dist.HashStore()
    store.set("rpcnn/word/1", "dead")
    store.set("rpcnn/answer/1", "dead older")
    assert len(set(run(store, 2).values())) == 1


def test_a_process_that_never_comes_is_named():
    with pytest.raises(TimeoutError, match="processes 1, 2 did not arrive within 0:00:01"):
        agree(dist.HashStore(), 0, 3, datetime.timedelta(seconds=1))
    with pytest.raises(TimeoutError, match="process 0 did not arrive"):
        agree(dist.HashStore(), 1, 3, datetime.timedelta(seconds=0))
