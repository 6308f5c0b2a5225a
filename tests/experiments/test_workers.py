"""Processes that share work."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
SHARING = """
import os, signal, sys, time
from experiments.workers import pool

def begin(held):
    global name
    name = held

def work(item):
    # All workers hold the pipe: it is closed when the last of them has ended.
    os.write(1, f"{name} {item} {os.getpid()}\\n".encode())
    return item * item

if __name__ == "__main__":
    with pool(2, begin, "worker") as shared:
        print("squares", *shared.map(work, range(4)), flush=True)
        if sys.argv[1] == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
"""


def shared(folder: Path, how: str) -> subprocess.CompletedProcess:
    script = folder / "sharing.py"
    script.write_text(SHARING)
    command = [sys.executable, str(script), how]
    paths = {"PYTHONPATH": str(ROOT)}
    return subprocess.run(
        command, env=os.environ | paths, capture_output=True, text=True, timeout=120, check=False
    )


def test_work_is_shared_and_answered_in_its_order(tmp_path: Path) -> None:
    done = shared(tmp_path, "whole")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[-1] == "squares 0 1 4 9"
    assert sorted(line.split()[:2] for line in lines[:-1]) == [["worker", str(i)] for i in range(4)]
    assert str(os.getpid()) not in {line.split()[2] for line in lines[:-1]}


def test_workers_end_with_a_process_that_is_killed(tmp_path: Path) -> None:
    """`run` returns when the last process that holds its pipe has ended."""
    done = shared(tmp_path, "killed")
    assert done.returncode == -9 and "squares 0 1 4 9" in done.stdout
