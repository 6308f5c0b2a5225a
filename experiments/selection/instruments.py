"""What task features are measured with: MiniLM, an untrained adapter on it, and LEEP's anchors.

The anchors are class means of the data set that learners of the portfolio were meta-trained on, in
the features of the frozen backbone.  They are kept beside the matrix: whoever describes a new task
needs the same ones, and may not have the data set.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from experiments.build import Workshop, seeded
from experiments.errors import UserError
from experiments.files import write_bytes
from meta_models.heads import prototypes
from metalearn.inner.loop import InnerLoop
from metalearn.selection.features import Instruments
from tasks.episode import EpisodeShape, TaskStream

ANCHORS = "anchors.safetensors"
EXAMPLES = 8  # of a class: its mean in unit-length features moves little with more


def build_instruments(base: Workshop, anchors: np.ndarray | None) -> Instruments:
    """Instruments on the models of a workshop, whose frozen features are shared with its learners.

    Args:
        base: Objects with the settings of the portfolio's trained learners.
        anchors: `[Z, D]`, see `anchors_of`; None: no LEEP.
    """
    store, model, inner = base.frozen_features, base.prototype_model, base.experiment.inner
    return Instruments(
        store,
        store.model.init(seeded(0)),
        model,
        model.init(seeded(0)),
        InnerLoop(1, {"adapter": inner.rate, "head": inner.rate}),
        anchors,
    )


def anchors_of(base: Workshop, folder: Path) -> np.ndarray:
    """The anchors `[Z, D]` that a folder keeps; where it keeps none, they are made and kept.

    Args:
        base: Its family's training classes are the anchors.
        folder: The matrix's folder.

    Raises:
        UserError: If what is kept is damaged.
    """
    path = folder / ANCHORS
    if path.exists():
        try:
            return load(path.read_bytes())["anchors"]
        except (SafetensorError, KeyError):
            raise UserError(f"{path} is damaged; remove it, and it is made again") from None
    classes = base.family.classes("train")
    shape = EpisodeShape(len(classes), EXAMPLES, 1)
    task = TaskStream(base.family, "train", shape, seed=0).task(0)
    support = base.collator.collate([task], [0]).support
    store = base.frozen_features
    assert support.labels is not None
    found = store.features(store.model.init(seeded(0)), support)
    means = prototypes(found, support.labels, len(classes))[0].double().numpy()
    write_bytes(path, save({"anchors": means}))
    return means
