"""Numbers of many generators at once are those of numpy, one generator at a time."""

import numpy as np
import pytest

from tasks.randomness import uniforms


@pytest.mark.parametrize(
    "key", [(), (5,), (0, 0), (7, 2), (2**32 - 1, 1), (2**40, 1), (1, 2, 3, 4)]
)
@pytest.mark.parametrize(
    "indices",
    [range(40), range(2**32 - 3, 2**32), range(2**32 - 1, 2**32 + 2), [9, 3, 3, 1]],
    ids=str,
)
@pytest.mark.parametrize("count", [1, 23])
def test_they_are_those_of_numpy(key, indices, count) -> None:
    expected = [np.random.default_rng((*key, index)).random(count) for index in indices]
    np.testing.assert_array_equal(uniforms(key, indices, count), np.stack(expected))


def test_a_negative_seed_is_refused_as_by_numpy() -> None:
    with pytest.raises(ValueError, match="non-negative"):
        uniforms((-1, 0), range(3), 2)
