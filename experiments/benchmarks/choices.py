"""Two measurements behind what the README says of kept texts and of compiling a language model.

    python -m experiments.benchmarks.choices

One thread.  Kept texts: what the frozen layers below the first adapter make of texts of the
embedded family, computed, and read from the files that keep it by an adapter that has not computed
them.  Compilation: the forward and the backward of MiniLM with LoRA on texts of one length, by
`torch.compile` and as it is; each the median of some repetitions, after two that warm up.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import torch

from experiments.benchmarks.__main__ import RECORDS, count
from experiments.benchmarks.rounds import ask
from experiments.files import write_json
from meta_models.adapters import Adapter
from meta_models.backbone import load_backbone
from meta_models.store import Keep
from tasks.collate import Collator
from tasks.episode import EpisodeShape, TaskStream
from tasks.sources.builtin import builtin

ROWS, TOKENS = 25, 20  # texts of a compiled forward, as many as the support of the reference work


def main(words: list[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.benchmarks.choices",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--backbone", default="minilm")
    parser.add_argument("--times", type=count, default=5, help="repetitions (5)")
    parser.add_argument("--output", type=Path, default=RECORDS / "choices.json", metavar="FILE")
    arguments = parser.parse_args(words)
    torch.set_num_threads(1)
    found = kept(arguments.backbone, arguments.times)
    said = "{texts} texts: {computed:.2f} s to compute, {read:.4f} s to read from files"
    print(said.format(**found))
    compiled = compilation(arguments.backbone, arguments.times)
    said = "forward and backward: {eager:.3f} s; compiled {compiled:.3f} s, the first {first:.0f} s"
    print(said.format(**compiled))
    record = {"backbone": arguments.backbone, "kept": found, "compilation": compiled}
    write_json(arguments.output, record | {"environment": ask({}, 1)})
    return 0


def kept(backbone: str, times: int) -> dict[str, float]:
    """Seconds to compute the states of texts, and to read them."""
    frozen = load_backbone(backbone)
    top = (frozen.layers - 1,)
    stream = TaskStream(builtin(), "train", EpisodeShape(ways=5, shots=5, queries=15), seed=0)
    episode = Collator(frozen.tokenizer).collate([stream.task(0)], (0,))
    batches = [b.tokens for b in (episode.support, episode.query) if b.tokens]
    texts = sum(int(tokens.mask.any(-1).sum()) for tokens in batches)
    computed, read = [], []
    for _ in range(times):
        with TemporaryDirectory() as folder:
            keep = Keep(memory=0.0, disk=1.0, folder=Path(folder))
            for seconds in (computed, read):
                trunk = Adapter(load_backbone(backbone), "lora", {"r": 8}, top, keep).trunk
                assert trunk is not None
                seconds.append(_timed(lambda trunk=trunk: [trunk.rows(t) for t in batches]))
    return {"texts": texts, "computed": median(computed), "read": median(read)}


def compilation(backbone: str, times: int) -> dict[str, float]:
    """Seconds of a forward and a backward, and of the first compiled one."""
    frozen = load_backbone(backbone)
    adapter = Adapter(frozen, "lora", {"r": 8})
    values = adapter.init(torch.Generator().manual_seed(0))
    leaves = {name: value.requires_grad_() for name, value in values.items()}
    config: Any = frozen.model.config
    ids = torch.randint(config.vocab_size, (ROWS, TOKENS))
    mask = torch.ones_like(ids, dtype=torch.bool)

    def both(hidden: Callable[..., torch.Tensor]) -> None:
        torch.autograd.grad(hidden(leaves, ids, mask, None).sum(), list(leaves.values()))

    graph = torch.compile(adapter.hidden)
    first = _timed(lambda: both(graph))
    seconds = {}
    for name, hidden in (("eager", adapter.hidden), ("compiled", graph)):
        seconds[name] = median([_timed(lambda h=hidden: both(h)) for _ in range(times + 2)][2:])
    return seconds | {"first": first}


def _timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


if __name__ == "__main__":
    sys.exit(main())
