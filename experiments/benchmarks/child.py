"""The process that measures one row: a request as JSON on its input, the figures on its output.

It imports what its method needs and nothing else, because its memory is part of what is measured.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any

from experiments.benchmarks.plan import Case


def main() -> None:
    """Answer the request on the input."""
    print(json.dumps(answer(json.load(sys.stdin))))


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """The figures of the case in a request; the environment, where there is none."""
    if "case" not in request:
        return environment()
    case = Case.read(request["case"])
    if case.method == "copies":
        from experiments.benchmarks.copies import count

        return count(case)
    return measure(case, request)


def measure(case: Case, request: dict[str, Any]) -> dict[str, Any]:
    """Time steps of a case after a warm-up.

    Returns:
        `first`, seconds of the first step; `seconds` of each one after the warm-up, and
        `cpu_seconds`, the processor's, which other processes disturb less; `resident` and `peak`,
        bytes of the whole process before the first step and at most; `device_peak`, bytes
        of the accelerator; the loss; and, where they are counted, `flops` of a step and
        `matrix_rate`, those a second of one large product.
    """
    if case.method == "metalearn":
        from experiments.benchmarks.ours import prepare
    else:
        from experiments.benchmarks.peers import prepare
    import torch

    torch.set_num_threads(request["threads"])
    step = prepare(case)
    resident = _resident()
    wait = torch.cuda.synchronize if case.work.device.startswith("cuda") else lambda: None
    seconds, worked, loss, gradient = [], [], 0.0, {}
    for number in range(request["warmup"] + request["steps"]):
        gradient = {}  # of the step before: no part of the next one's memory
        wait()
        began, idle = time.perf_counter(), time.process_time()
        loss, gradient = step(number)
        wait()
        seconds.append(time.perf_counter() - began)
        worked.append(time.process_time() - idle)
    found: dict[str, Any] = {
        "first": seconds[0],
        "seconds": seconds[request["warmup"] :],
        "cpu_seconds": worked[request["warmup"] :],
        "resident": resident,
        "peak": _peak(),
        "loss": loss,
    }
    if case.work.device.startswith("cuda"):
        found["device_peak"] = torch.cuda.max_memory_allocated()
    if case.count:
        from torch.utils.flop_counter import FlopCounterMode

        with FlopCounterMode(display=False) as counter:
            step(0)
        found["flops"] = counter.get_total_flops()
        found["matrix_rate"] = _matrix_rate(case.work.device, getattr(torch, case.work.dtype))
    if request.get("gradient"):
        import numpy

        arrays: Any = {name: value.float().cpu().numpy() for name, value in gradient.items()}
        numpy.savez(request["gradient"], **arrays)
    return found


def _resident() -> int:
    """Bytes of this process in memory now."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _peak() -> int:
    """Bytes of this process in memory at most, libraries and all."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _matrix_rate(device: str, dtype: Any) -> float:
    """Floating-point operations a second of a product of square matrices, the best of ten."""
    import torch

    size = 1024 if device == "cpu" else 8192
    matrix = torch.randn(size, size, device=device, dtype=dtype)
    best = float("inf")
    for _ in range(10):
        began = time.perf_counter()
        float((matrix @ matrix)[0, 0])
        best = min(best, time.perf_counter() - began)
    return 2 * size**3 / best


def environment() -> dict[str, Any]:
    """What the figures depend on besides the code."""
    from importlib import metadata

    import torch

    from experiments import folder

    found = folder.environment()
    for package in ("higher", "learn2learn", "torchopt"):
        try:
            found["packages"][package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found["packages"][package] = None
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            found["cpu"] = line.partition(":")[2].strip()
            break
    allocator = ("MALLOC_", "GLIBC_TUNABLES", "LD_PRELOAD")  # they move what stays resident
    found["allocator"] = {n: v for n, v in os.environ.items() if n.startswith(allocator)}
    found["accelerator"] = torch.cuda.is_available()
    return found


if __name__ == "__main__":
    main()
