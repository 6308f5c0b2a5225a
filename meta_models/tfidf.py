"""TF-IDF: texts as weighted bags of tokens, fitted on the support texts of a task alone.

Sparck Jones 1972, "A Statistical Interpretation of Term Specificity and its Application in
Retrieval"; weights as in scikit-learn:

    w(x, g) = n(x, g) (1 + ln((1 + |S|) / (1 + d(g)))),    features = w / |w|

with n(x, g) how often the n-gram g is in x, d(g) the number of the |S| support texts that hold it.
Terms are n-grams of the tokens that a language model would read, so that learners of both kinds
see the same, equally cut texts.  What no support text holds is not seen in a query either.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from meta_models.errors import ModelError
from tasks.episode import Batch

Vectorizer = Any
"""scikit-learn's, fitted."""


class TfIdf:
    """A featurizer without a language model.

    Args:
        longest: Tokens of the longest n-gram.

    Raises:
        ModelError: If there are none in it.
    """

    def __init__(self, longest: int = 2) -> None:
        if longest < 1:
            raise ModelError(f"n-grams of {longest} tokens hold nothing; give 1 or more")
        self.longest = longest

    def fit(self, support: Batch) -> tuple[Vectorizer, ...]:
        """The vocabulary and its weights, one a task."""
        from sklearn.feature_extraction.text import TfidfVectorizer  # slow to import

        options: dict[str, Any] = {"token_pattern": r"\S+", "ngram_range": (1, self.longest)}
        return tuple(
            TfidfVectorizer(lowercase=False, **options).fit(texts) for texts in _texts(support)
        )

    def rows(self, fitted: tuple[Vectorizer, ...], batch: Batch) -> list[np.ndarray]:
        """`[B, V]` features of each task, of unit length; zero at padding and for unknown terms.

        Args:
            fitted: What `fit` gave for the support of the same tasks.
            batch: Texts of the same tasks.
        """
        return [
            vectorizer.transform(texts).toarray()
            for vectorizer, texts in zip(fitted, _texts(batch, real=False), strict=True)
        ]

    def features(self, fitted: tuple[Vectorizer, ...], batch: Batch) -> Tensor:
        """The same as one `[T, B, V]`: zero at terms that a task does not have."""
        rows = [torch.from_numpy(found.T).float() for found in self.rows(fitted, batch)]
        return pad_sequence(rows, batch_first=True).transpose(1, 2)


def _texts(batch: Batch, real: bool = True) -> list[list[str]]:
    """Texts of each task, a word a token id; an empty one at padding unless only `real` ones."""
    if batch.tokens is None:
        raise ModelError("TF-IDF needs text; these tasks have numbers")
    tokens = batch.tokens
    return [
        [
            " ".join(map(str, ids[mask].tolist()))
            for ids, mask, there in zip(*rows, strict=True)
            if there or not real
        ]
        for rows in zip(tokens.ids.cpu(), tokens.mask.cpu(), batch.example_mask.cpu(), strict=True)
    ]
