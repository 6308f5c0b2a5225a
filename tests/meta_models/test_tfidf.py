"""TF-IDF features: the formula, and what a vocabulary knows."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

from meta_models.errors import ModelError
from meta_models.tfidf import TfIdf
from tasks.episode import Batch, Tokens


def batch(rows: list[list[int]], real: int | None = None) -> Batch:
    """One task of texts of token ids; the last ones are padding."""
    width, count = max(map(len, rows)), len(rows)
    ids = torch.tensor([[row + [0] * (width - len(row)) for row in rows]])
    mask = torch.tensor([[[i < len(row) for i in range(width)] for row in rows]])
    there = torch.arange(count)[None] < (count if real is None else real)
    classes = torch.ones(1, 1, dtype=torch.bool)
    return Batch(
        ("s",), "class", torch.arange(count)[None], there, classes, classes.long(), (("a",),),
        Tokens(ids, mask),
    )  # fmt: skip


def test_features_are_the_formula() -> None:
    support = [[5, 6, 5], [6, 7], [8]]
    tfidf = TfIdf(1)
    vectorizers = tfidf.fit(batch(support))
    (rows,) = tfidf.rows(vectorizers, batch([[5, 6, 5, 9], [9]]))

    place = {int(term): at for term, at in vectorizers[0].vocabulary_.items()}
    holders = Counter(term for text in support for term in set(text))
    idf = {term: 1 + np.log((1 + 3) / (1 + holders[term])) for term in place}
    expected = np.zeros(len(place))
    expected[place[5]], expected[place[6]] = 2 * idf[5], idf[6]
    np.testing.assert_allclose(rows[0], expected / np.linalg.norm(expected))
    assert not rows[1].any()  # a token that no support text holds


def test_pairs_of_tokens_are_terms_and_special_tokens_no_obstacle() -> None:
    ordered, reversed_ = batch([[5, 6, 7]]), batch([[7, 6, 5]])
    one, two = TfIdf(1), TfIdf(2)

    assert one.rows(one.fit(ordered), reversed_)[0].sum() == pytest.approx(3**0.5)
    assert two.rows(two.fit(ordered), reversed_)[0].sum() == pytest.approx(3**0.5)
    assert two.rows(two.fit(ordered), ordered)[0].sum() == pytest.approx(5**0.5)


def test_padding_is_not_in_the_vocabulary_and_has_no_features() -> None:
    tfidf = TfIdf(1)
    fitted = tfidf.fit(batch([[5], [6]], real=1))

    assert set(fitted[0].vocabulary_) == {"5"}
    features = tfidf.features(fitted, batch([[5], [6]]))
    assert features.tolist() == [[[1.0], [0.0]]]


def test_mistakes_are_named() -> None:
    with pytest.raises(ModelError, match="n-grams of 0 tokens"):
        TfIdf(0)
    with pytest.raises(ModelError, match="needs text"):
        TfIdf().fit(replace(batch([[5]]), tokens=None))
