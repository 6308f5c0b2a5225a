"""The processes of `torchrun`: joined into a world, and named when they die.

A process that is killed takes its connections with it, so that the others' next exchange fails;
but what fails names a socket, and the one behind it may only have given up a moment earlier because
of a third.  So every process has a thread that answers when its name is called, and whoever meets
a failure calls them all: those that stay silent are lost.  The first list of them counts.

`torchrun` sends SIGTERM to those that are left, which then meet the failure at their next exchange
(`experiments.stopping`).
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from threading import Thread
from typing import Any

import torch
import torch.distributed as dist

from experiments.errors import LostRank, RankError, Stopped, UserError
from meta_models.errors import ModelError
from metalearn.distributed import ALONE, StoppedByFirst, World
from tasks.episode import TaskError

GRACE = 5.0
"""Seconds to answer a call in: milliseconds are enough unless one long call holds the interpreter,
and `torchrun` gives the others 30 seconds after a death."""


@contextmanager
def joined(threads: int, timeout: float) -> Iterator[World]:
    """The world of this process: what `torchrun` says, or it is alone.

    Args:
        threads: Threads of torch; 0: its share of the cores.
        timeout: Seconds that processes wait for each other.

    Raises:
        LostRank: If another process dies meanwhile.
        RankError: If this process alone meets a mistake of the user, and is not the first.
        StoppedByFirst: If the first process has met one.
        Stopped: If the processes were asked to stop, and have done so together.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        if threads:
            torch.set_num_threads(threads)
        yield ALONE
        return
    here = int(os.environ.get("LOCAL_WORLD_SIZE", size))
    torch.set_num_threads(threads or max(1, len(os.sched_getaffinity(0)) // here))
    limit = timedelta(seconds=timeout)
    world, calls = _connect(limit)
    try:
        yield world
    except StoppedByFirst:
        raise
    except Stopped:
        dist.destroy_process_group()
        raise
    except (UserError, TaskError, ModelError) as error:
        calls.blame_me(mistaken=True)
        if world.first:
            raise
        if calls.first_is_mistaken():  # the same everywhere, and the first process says it
            raise StoppedByFirst from error
        raise RankError(f"rank {world.rank}: {error}") from error
    except Exception as error:
        if calls.first_is_mistaken(wait=0):
            raise StoppedByFirst from error
        if lost := calls.lost():
            ranks = ", ".join(map(str, lost))
            verb = "was" if len(lost) == 1 else "were"
            plural = "" if len(lost) == 1 else "s"
            raise LostRank(f"rank{plural} {ranks} {verb} lost") from error
        calls.blame_me()
        raise
    except BaseException:
        calls.blame_me()
        raise
    else:
        dist.destroy_process_group()
    finally:
        calls.close()


def _connect(limit: timedelta) -> tuple[World, _Calls]:
    # `rendezvous` is where torchrun's address, rank and size are read.
    from torch.distributed.rendezvous import rendezvous

    backend = "gloo"
    if torch.cuda.is_available():
        # Gradients and sharded layers by NCCL; figures, which are on the CPU, by gloo.  From here
        # on "cuda" means the card of this process.
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        backend = "cpu:gloo,cuda:nccl"
    try:
        store, rank, size = next(rendezvous("env://", timeout=limit))
        calls = _Calls(store, rank, size)
        dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=limit)
    except (RuntimeError, dist.DistError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            "the processes do not find each other within "
            f"--timeout {limit.total_seconds():g}: {reason}"
        ) from error
    return World(rank, size), calls


class _Calls:
    """Calls and answers in the store of the process group, on connections of their own.

    Args:
        store: The store; it outlives every process where `torchrun` keeps it.
        rank: This process.
        size: How many there are.
    """

    def __init__(self, store: Any, rank: int, size: int) -> None:
        self.rank = rank
        self.size = size
        self._store = store.clone()
        # Waiting blocks a connection.
        self._thread = Thread(target=self._answer, args=(store.clone(),), daemon=True)
        self._thread.start()

    def _answer(self, store: Any) -> None:
        try:
            store.wait([f"call/{self.rank}"], timedelta(days=365))
            store.set(f"here/{self.rank}", "")
        except RuntimeError:
            pass  # the store is gone, and nobody calls

    def lost(self) -> list[int]:
        """The processes that are gone."""
        try:
            return self._called()
        except RuntimeError:
            return [0]  # without torchrun's agent, the store is kept by the first process

    def _called(self) -> list[int]:
        if not self._store.check(["lost"]):
            for rank in range(self.size):
                self._store.set(f"call/{rank}", "")
            end = time.monotonic() + GRACE
            silent = [rank for rank in range(self.size) if not self._here(rank, end)]
            if not silent:
                return []
            self._store.compare_set("lost", "", ",".join(map(str, silent)))
        return [int(rank) for rank in self._store.get("lost").decode().split(",")]

    def _here(self, rank: int, end: float) -> bool:
        return self._waited(f"here/{rank}", max(0.1, end - time.monotonic()))

    def _waited(self, key: str, seconds: float) -> bool:
        try:
            self._store.wait([key], timedelta(seconds=seconds))
        except dist.DistStoreError:
            return False
        return True

    def blame_me(self, mistaken: bool = False) -> None:
        """This process ends before its work is done, by its own error."""
        try:
            if mistaken:
                self._store.set(f"mistaken/{self.rank}", "")
            self._store.compare_set("lost", "", str(self.rank))
        except RuntimeError:
            pass  # nobody left to tell

    def first_is_mistaken(self, wait: float = GRACE) -> bool:
        """Whether the first process has met a mistake of the user, and says so."""
        try:
            if wait:
                return self._waited("mistaken/0", wait)
            return self._store.check(["mistaken/0"])
        except RuntimeError:
            return False

    def close(self) -> None:
        """End the thread; this process counts as present from now on."""
        try:
            self._store.set(f"call/{self.rank}", "")
        except RuntimeError:
            return
        self._thread.join(GRACE)


def restart(words: str) -> str:
    """The command that starts the processes of this run again."""
    nodes = int(os.environ.get("GROUP_WORLD_SIZE", "1"))
    here = os.environ.get("LOCAL_WORLD_SIZE", "1")
    several = f"--nnodes {nodes} " if nodes > 1 else ""
    return f"torchrun {several}--nproc-per-node {here} -m experiments.cli {words}"
