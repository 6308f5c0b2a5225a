"""The pages of docs/ that are made from the code, so that they cannot disagree with it.

    python -m experiments.pages     write docs/adapters.md and docs/algorithms.md

The page of adapters is measured on the models themselves.  The page of algorithms is made from a
block in the docstring of each module of `metalearn/algorithms` and `metalearn/baselines`, one entry
a catalog name, six clauses that begin with the words of `CLAUSES`:

    At a glance:
        anil: learns the adapter; order 2; trains in 4; adapts in 1; holds the graph of one pass;
            use it when adaptation must be cheap.
"""

from __future__ import annotations

import ast
import copy
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from experiments.catalog import LEARNERS
from experiments.errors import UserError
from experiments.files import write_bytes
from meta_models.adapters import Adapter
from meta_models.backbone import Backbone, load_backbone
from meta_models.errors import ModelError
from meta_models.methods import METHODS, Method

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
FOLDERS = ("metalearn/algorithms", "metalearn/baselines")
CLAUSES = ("learns", "order", "trains in", "adapts in", "holds", "use it when")
BLOCK = re.compile(r"^At a glance:\n((?:[ ]{4}.*\n?)+)", re.MULTILINE)
ENTRY = re.compile(r"^ {4}(\S+): ((?:.*\n?)(?: {8}.*\n?)*)", re.MULTILINE)

ALGORITHMS = """# Algorithms

Every learner of the catalog (`metalearn list`), baselines first.  Made by
`python -m experiments.pages` from the docstrings of the files that the names link to; each of these
holds the paper, the equation and the deviations.

{table}

S are the inner steps.  A *pass* is one forward or one backward of the frozen backbone over the
support set of a task; the query set counts as another of the same size.  A step is a forward and a
backward, and two passes more where the meta-gradient is of second order.  A head that starts from
prototypes or label names takes one pass more to adapt and two more to train; `proto-maml` has them
counted.  `--inner.order 1` takes the first-order form of a learner of order 2: 2 S for 4 S, and the
graph of one step.  `--inner.gradient adjoint` holds the graph of one step at order 2 and takes half
as long again.

Where to begin: `prototypes` and `finetune` say what there is to gain, `protonet` is the first to
train.  If adaptation has to go further than a metric: `anil`, then `maml`.
"""

ADAPTERS = """# Adapters

What `--adapter.method` takes.  Made by `python -m experiments.pages`, which measures all but the
words.

{table}

Parameters are those that a task adapts, on MiniLM (6 layers of 384) at the default options.
*Batched*: the tasks of a batch share one forward pass; *loop*: they run one after the other, which
happens by itself.  *Exact*: hidden states under fresh values equal those of the frozen model bit
for bit.  Virtual tokens cannot do that: even zeros take attention.

`--adapter.options '{{"r": 16}}'` changes fields of the PEFT configuration, `--adapter.layers 4 5`
names the layers that carry the adapter (virtual tokens have none to choose).  `target_modules` are
patterns or endings of module names; without them PEFT's choice for the architecture is taken (for
`ia3` on BERT, the input of the attention's output layer is scaled as well), for `ln_tuning` all
normalizations behind the embeddings, for `bias` every bias in the layers (Llama has none and is
refused).  Any other method of PEFT works by the lower-case name of its type:
`--adapter.method loha`.

Every method is exported as an ordinary PEFT folder, which `peft.PeftModel.from_pretrained` loads,
and is read back bit for bit.  `bias` is written as a LoRA of rank 1 whose product is zero, with
`bias: all`, since that is where PEFT keeps biases.  The projections of `vera` are a function of its
option `projection_prng_key`; a folder with other ones is refused.

Meta-gradients of second order through each method equal finite differences.  For `dora` this needs
the derivative of the norm, which the paper and PEFT leave out: see
[`meta_models/dora.py`](../meta_models/dora.py).
"""


def glances(source: str, name: str) -> dict[str, list[str]]:
    r"""The entries of a module's "At a glance", as one text for each of `CLAUSES`.

    Args:
        source: Text of the module.
        name: How messages call it.

    Raises:
        UserError: If an entry lacks a clause.

    Example:
        >>> entry = "x: learns all; order 1; trains in 4; adapts in 1; holds no graph; use it when"
        >>> glances(f"'X.\\n\\nAt a glance:\\n    {entry} asked.\\n'", "x.py")
        {'x': ['all', '1', '4', '1', 'no graph', 'asked']}
    """
    block = BLOCK.search((ast.get_docstring(ast.parse(source), clean=False) or "") + "\n")
    found = {}
    for learner, text in ENTRY.findall(block[1]) if block else ():
        parts = " ".join(text.split()).rstrip(".").split("; ", len(CLAUSES) - 1)
        missing = [c for c, part in zip(CLAUSES, parts, strict=False) if not part.startswith(c)]
        missing += CLAUSES[len(parts) :]
        if missing:
            raise UserError(f"{name}: the entry {learner} of At a glance has no '{missing[0]} ...'")
        found[learner] = [p.removeprefix(c).strip() for c, p in zip(CLAUSES, parts, strict=True)]
    return found


def algorithms(root: Path = ROOT, names: Iterable[str] = tuple(LEARNERS)) -> str:
    """The page of algorithms.

    Args:
        root: Where the packages are.
        names: The learners, in the order of the catalog.

    Raises:
        UserError: If a learner has no entry, or an entry no learner.
    """
    cells: dict[str, list[str]] = {}
    for path in (path for folder in FOLDERS for path in sorted((root / folder).glob("*.py"))):
        place = path.relative_to(root).as_posix()
        for name, texts in glances(path.read_text(encoding="utf-8"), place).items():
            cells[name] = [f"[{name}](../{place})", *texts]
    names = list(names)
    if different := [n for n in {**dict.fromkeys(names), **cells} if (n in names) != (n in cells)]:
        wanted = "the catalog" if different[0] in cells else "At a glance of any docstring"
        raise UserError(f"learner {different[0]} is not in {wanted}")
    titles = ("learner", "learns", "order", "passes to train", "passes to adapt", "holds")
    return ALGORITHMS.format(table=_table((*titles, "use it when"), (cells[n] for n in names)))


def adapters() -> str:
    """The page of adapters, measured on MiniLM and on the tiny backbones."""
    titles = ("method", "changes", "defaults", "parameters", "encoder", "decoder", "at the start")
    minilm = load_backbone("minilm")
    rows = (_adapter_row(name, method, _copy(minilm)) for name, method in METHODS.items())
    return ADAPTERS.format(table=_table((*titles, "PEFT configuration", "paper"), rows))


def _copy(backbone: Backbone) -> Backbone:
    """A backbone that an adapter may change in place."""
    return replace(backbone, model=copy.deepcopy(backbone.model))


def _adapter_row(name: str, method: Method, minilm: Backbone) -> list[str]:
    adapter = Adapter(minilm, name)
    values = adapter.init(torch.Generator().manual_seed(0))
    tiny = {backbone: _measured(backbone, name) for backbone in ("bert", "gpt2", "llama")}
    encoder = tiny.pop("bert")
    assert encoder is not None
    decoders = [found for found in tiny.values() if found is not None]
    fields = {**method.defaults, **method.fixed}
    return [
        f"`{name}`",
        method.changes,
        ", ".join(f"`{n}={value}`" for n, value in fields.items()),
        f"{sum(value.numel() for value in values.values()):,}",
        _mode([encoder]),
        _mode(decoders),
        "exact" if all(exact for _, exact in [encoder, *decoders]) else "changes the model",
        f"`{type(adapter.config).__name__}`",
        method.paper,
    ]


def _measured(backbone: str, method: str) -> tuple[bool, bool] | None:
    """Whether a method is batched and starts as the frozen model; None if it is refused."""
    frozen = load_backbone(f"tiny-{backbone}")
    plain = Adapter(frozen, "none")
    try:
        adapter = Adapter(_copy(frozen), method)
    except ModelError:
        return None
    ids, mask = torch.tensor([[5, 6, 7, 8], [9, 10, 0, 0]]), torch.tensor([[1] * 4, [1, 1, 0, 0]])
    values = adapter.init(torch.Generator().manual_seed(0))
    with torch.no_grad():
        states = adapter.hidden(values, ids, mask.bool(), None)
        expected = plain.hidden({}, ids, mask.bool(), None)
    return adapter.batched, torch.equal(states[mask.bool()], expected[mask.bool()])


def _mode(found: Sequence[tuple[bool, bool]]) -> str:
    return "batched" if all(batched for batched, _ in found) else "loop"


def _table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    def lines() -> Iterator[str]:
        yield from (" | ".join(titles), " | ".join([":--"] * len(titles)))
        yield from (" | ".join(row) for row in rows)

    return "\n".join(f"| {line} |" for line in lines())


def main() -> int:
    """The command."""
    try:
        pages = {"adapters.md": adapters(), "algorithms.md": algorithms()}
    except UserError as error:
        print(f"pages: {error}", file=sys.stderr)
        return 2
    DOCS.mkdir(exist_ok=True)
    for name, text in pages.items():
        write_bytes(DOCS / name, text.encode())
        print(f"docs/{name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
