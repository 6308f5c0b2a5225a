"""What can be known of a task from its support set, in groups by what knowing it costs.

=========  ===================================================================  =================
group      features                                                             cost
=========  ===================================================================  =================
shape      ways, shots, log_support, balance, least                             counting
words      tokens, tokens_deviation, vocabulary, new_terms, shared_terms,       counting
           tfidf_centroid
names      name_similarity, name_accuracy, name_margin                          names, 1 pass
geometry   silhouette, neighbour, centroid, spread, logme, leep                 1 pass, shared
gradient   loss, loss_drop, adapter_gradient, head_gradient                     3 passes
=========  ===================================================================  =================

A pass is one of the support set through the backbone; names are N short texts; "shared" says that
kept features of the support serve every learner that stands on them.  Nothing reads a query: the
functions take a support set and are given nothing else.

With n_c the examples of class c and p_c = n_c / n: balance = - sum_c p_c ln p_c / ln N, least =
N min_c p_c.  neighbour and centroid are leave-one-out accuracies of the nearest example and of the
nearest class mean; the silhouette of x is (b - a) / max(a, b), with a its mean distance to its own
class and b to the nearest other one (Rousseeuw 1987), and 0 where it is alone in its class.  Where
no class has two examples nothing can be left out, and the accuracies are those of guessing, 1/N.
loss is that of the start from prototypes, loss_drop what one inner step takes off it.
LogME and LEEP: `metalearn.selection.transferability`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from meta_models import clock
from meta_models.features import FeatureStore
from meta_models.model import AdaptedModel
from meta_models.params import Params, part, stack
from meta_models.tfidf import TfIdf
from metalearn.baselines.label_names import name_features
from metalearn.inner.loop import InnerLoop, inner_loop
from metalearn.selection.transferability import leep, logme
from tasks.episode import Batch

Found = dict[str, float]


@dataclass(frozen=True)
class Instruments:
    """What tasks are measured with.

    Attributes:
        store: Kept features of a frozen backbone.
        state: Its parameters.
        model: A model with an adapter and a head that starts from prototypes.
        start: Its untrained meta-parameters.
        loop: One inner step.
        anchors: Class means of a source in the features of `store` `[Z, D]`, whose classes LEEP
            goes through; None: no LEEP.
    """

    store: FeatureStore
    state: Params
    model: AdaptedModel
    start: Params
    loop: InnerLoop
    anchors: np.ndarray | None = None


def shape(support: Batch, instruments: Instruments) -> Found:
    """Sizes of the task."""
    share = np.bincount(_labels(support), minlength=_ways(support)) / len(_labels(support))
    entropy = -np.sum(share * np.log(np.maximum(share, 1e-300)))
    return {
        "ways": float(len(share)),
        "shots": len(_labels(support)) / len(share),
        "log_support": float(np.log(len(_labels(support)))),
        "balance": float(entropy / np.log(max(2, len(share)))),
        "least": float(len(share) * share.min()),
    }


def words(support: Batch, instruments: Instruments) -> Found:
    """Lengths, and what tokens the classes have in common.

    vocabulary: distinct tokens a token; new_terms: share of an example's terms that no other
    example has; shared_terms: share of the distinct tokens that more than one class has.
    """
    assert support.tokens is not None
    texts = [
        ids[mask].tolist()
        for ids, mask in zip(support.tokens.ids[0], support.tokens.mask[0], strict=True)
    ]
    labels = _labels(support)
    sets = [set(text) for text in texts]
    holds: dict[int, set[int]] = {}
    holders: dict[int, int] = {}
    for label, terms in zip(labels.tolist(), sets, strict=True):
        for term in terms:
            holds.setdefault(term, set()).add(label)
            holders[term] = holders.get(term, 0) + 1
    lengths = np.array([len(text) for text in texts], dtype=np.float64)
    alone = [np.mean([holders[term] == 1 for term in terms]) for terms in sets]
    tfidf = TfIdf()
    rows = tfidf.rows(tfidf.fit(support), support)[0]
    return {
        "tokens": float(lengths.mean()),
        "tokens_deviation": float(lengths.std()),
        "vocabulary": len(holds) / float(lengths.sum()),
        "new_terms": float(np.mean(alone)),
        "shared_terms": float(np.mean([len(classes) > 1 for classes in holds.values()])),
        "tfidf_centroid": centroid_accuracy(rows, labels),
    }


def names(support: Batch, instruments: Instruments) -> Found:
    """How much the names of the classes say: their mutual cosine, their accuracy, their margin."""
    rows = name_features(instruments.store, instruments.state, support)[0].double().numpy()
    cosines = rows @ rows.T
    count = len(rows)
    near = _unit(_features(support, instruments)) @ rows.T
    labels = _labels(support)
    own = near[np.arange(len(labels)), labels]
    near[np.arange(len(labels)), labels] = -np.inf
    return {
        "name_similarity": float((cosines.sum() - np.trace(cosines)) / max(1, count * (count - 1))),
        "name_accuracy": float(np.mean(own > near.max(1))),
        "name_margin": float(np.mean(own - near.max(1))),
    }


def geometry(support: Batch, instruments: Instruments) -> Found:
    """How the classes lie in the frozen features; spread: within classes, of the whole."""
    rows, labels = _features(support, instruments), _labels(support)
    means = np.stack([rows[labels == c].mean(0) for c in range(_ways(support))])
    whole = np.sum((rows - rows.mean(0)) ** 2)
    found = {
        "silhouette": silhouette(rows, labels),
        "neighbour": neighbour_accuracy(rows, labels),
        "centroid": centroid_accuracy(rows, labels),
        "spread": float(np.sum((rows - means[labels]) ** 2) / max(whole, 1e-12)),
        "logme": logme(rows, labels),
    }
    if instruments.anchors is not None:
        scale = float(instruments.state["scale"].exp())
        closeness = scale * _unit(rows) @ _unit(instruments.anchors).T
        closeness = np.exp(closeness - closeness.max(1, keepdims=True))
        found["leep"] = leep(closeness / closeness.sum(1, keepdims=True), labels)
    return found


def gradient(support: Batch, instruments: Instruments) -> Found:
    """The loss at the start, what one step does to it, and the norms of its gradient."""
    model, loop = instruments.model, instruments.loop
    meta = stack(instruments.start, 1)
    with torch.no_grad():
        values = model.start(meta, support)
    leaf = {n: v.detach().requires_grad_(part(n) in loop.rates) for n, v in values.items()}
    adapted = {n: v for n, v in leaf.items() if v.requires_grad}
    with torch.enable_grad():
        total = model.loss(leaf, support).sum()
        slopes = torch.autograd.grad(total, list(adapted.values()))
    loss = total.item()
    size: Found = {}
    for name, slope in zip(adapted, slopes, strict=True):
        size[part(name)] = size.get(part(name), 0.0) + float(slope.square().sum())
    after = inner_loop(model, values, support, loop, graph="none", meta=meta)[-1]
    with torch.no_grad():
        drop = loss - model.loss(after, support).sum().item()
    return {
        "loss": loss,
        "loss_drop": drop,
        "adapter_gradient": size.get("adapter", 0.0) ** 0.5,
        "head_gradient": size.get("head", 0.0) ** 0.5,
    }


GROUPS: Mapping[str, Callable[[Batch, Instruments], Found]] = {
    "shape": shape,
    "words": words,
    "names": names,
    "geometry": geometry,
    "gradient": gradient,
}


def describe(
    support: Batch, instruments: Instruments, groups: Sequence[str] = tuple(GROUPS)
) -> tuple[Found, dict[str, float]]:
    """Features of one task by name ("geometry.silhouette"), and the seconds of each group.

    Args:
        support: The support set of one task.
        instruments: What it is measured with.
        groups: Which groups.

    Raises:
        ValueError: If there are several tasks, no such group, or a feature is not finite.
    """
    if support.tasks != 1:
        raise ValueError(f"features are of one task at a time, not of {support.tasks}")
    found: Found = {}
    seconds: dict[str, float] = {}
    for group in groups:
        if group not in GROUPS:
            raise ValueError(f"no group of features {group}; it is one of {', '.join(GROUPS)}")
        began = clock.now()
        for name, value in GROUPS[group](support, instruments).items():
            if not np.isfinite(value):
                raise ValueError(f"feature {group}.{name} is {value} on this task")
            found[f"{group}.{name}"] = value
        seconds[group] = clock.now() - began
    return found, seconds


def centroid_accuracy(rows: np.ndarray, labels: np.ndarray) -> float:
    """Leave-one-out accuracy of the nearest class mean; 1/N where nothing can be left out.

    Args:
        rows: `[n, D]`.
        labels: `[n]` classes 0..N-1.

    Example:
        >>> centroid_accuracy(np.array([[0.0], [0.1], [5.0], [5.1]]), np.array([0, 0, 1, 1]))
        1.0
    """
    count = np.bincount(labels)
    totals = np.stack([rows[labels == c].sum(0) for c in range(len(count))])
    right = []
    for row, label in zip(rows, labels, strict=True):
        if count[label] > 1:
            own = np.eye(len(count))[label]
            means = (totals - own[:, None] * row) / (count - own)[:, None]
            right.append(np.argmin(np.sum((means - row) ** 2, 1)) == label)
    return float(np.mean(right)) if right else 1 / len(count)


def neighbour_accuracy(rows: np.ndarray, labels: np.ndarray) -> float:
    """Leave-one-out accuracy of the nearest example; 1/N where nothing can be left out.

    Example:
        >>> neighbour_accuracy(np.array([[0.0], [0.1], [5.0], [5.1]]), np.array([0, 1, 1, 1]))
        0.6666666666666666
    """
    count = np.bincount(labels)
    distances = _distances(rows)
    np.fill_diagonal(distances, np.inf)
    right = labels[distances.argmin(1)] == labels
    known = count[labels] > 1
    return float(right[known].mean()) if known.any() else 1 / len(count)


def silhouette(rows: np.ndarray, labels: np.ndarray) -> float:
    """Mean silhouette in euclidean distance; 0 for an example that is alone in its class."""
    count = np.bincount(labels)
    member = np.eye(len(count))[labels]
    totals = _distances(rows) @ member  # to all examples of each class; to itself it is 0
    index = np.arange(len(rows))
    own = totals[index, labels] / np.maximum(count[labels] - 1, 1)
    means = totals / count
    means[index, labels] = np.inf
    other = means.min(1)
    score = (other - own) / np.maximum(np.maximum(own, other), 1e-12)
    return float(np.mean(np.where(count[labels] > 1, score, 0.0)))


def _distances(rows: np.ndarray) -> np.ndarray:
    return np.sqrt(np.sum((rows[:, None] - rows[None]) ** 2, -1))


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def _labels(support: Batch) -> np.ndarray:
    assert support.labels is not None
    return support.labels[0].cpu().numpy()


def _ways(support: Batch) -> int:
    return support.class_mask.shape[1]


def _features(support: Batch, instruments: Instruments) -> np.ndarray:
    found = instruments.store.features(instruments.state, support)
    return found[0].double().cpu().numpy()
