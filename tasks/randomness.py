"""Uniform numbers of many seeded generators at once, those of numpy bit for bit.

    uniforms(key, indices, n)[t] = np.random.default_rng((*key, indices[t])).random(n)

Task i of a stream is a pure function of (seed, i), so each task has a generator of its own, and to
make one takes numpy longer than a small model takes for a task.  Here the same arithmetic runs on
all keys together:

    pool = SeedSequence's hash of the key: 4 words of 32 bits, hashed again to 4 of 64: s, s', i, i'
    c = 2 i + 1,    x_0 = a (s + c) + c,    x_{k+1} = a x_k + c    (mod 2^128)
    u_k = rotate(high ^ low of x_{k+1}), its upper 53 bits / 2^53

O'Neill 2014, "PCG: A Family of Simple Fast Space-Efficient Statistically Good Algorithms for
Random Number Generation", section 6.3 (XSL-RR 128/64); the hash is that of O'Neill's `seed_seq_fe`.
numpy promises both streams to stay as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

POOL = 4  # words of SeedSequence's pool
INIT_A, MULT_A = 0x43B0D7E5, 0x931E8875  # its hash on the way in
INIT_B, MULT_B = 0x8B51F9DD, 0x58F38DED  # and on the way out
MIX_L, MIX_R = np.uint32(0xCA01F9DD), np.uint32(0x4973F715)
MULTIPLIER = 0x2360ED051FC65DA44385DF649FCCF645  # a of PCG64
WORD = 2**32

Wide = tuple[np.ndarray, np.ndarray]
"""Numbers of 128 bits: their upper and lower 64."""


def uniforms(key: tuple[int, ...], indices: Sequence[int], count: int) -> np.ndarray:
    """`[n, count]` numbers in [0, 1): those of `default_rng((*key, index)).random(count)`.

    Args:
        key: First numbers of the key of each generator.
        indices: Last number of the key, one a generator.
        count: Numbers of each generator.

    Example:
        >>> numbers = uniforms((7, 0), [1, 5], 3)
        >>> bool((numbers[1] == np.random.default_rng((7, 0, 5)).random(3)).all())
        True
    """
    # More than a word a number; or fewer, which numpy refuses.
    if len(key) >= POOL or max(*key, *indices) >= WORD or min(*key, *indices) < 0:
        return np.stack([np.random.default_rng((*key, i)).random(count) for i in indices])
    words = np.zeros((POOL, len(indices)), np.uint32)
    words[: len(key)] = np.array(key, np.uint32)[:, None]
    words[len(key)] = indices
    high, low, by, to = _generated(_pool(words))
    # c = 2 i + 1
    step = (by << np.uint64(1)) | (to >> np.uint64(63)), (to << np.uint64(1)) | np.uint64(1)
    # x_{k+1} = a^{k+2} (s + c) + (1 + a + ... + a^{k+1}) c
    begin = _plus((high, low), step)
    power, series = _powers(count)
    x, y = ((wide[0][:, None], wide[1][:, None]) for wide in (begin, step))
    high, low = _plus(_times(x, power), _times(y, series))
    mixed, turn = high ^ low, high >> np.uint64(58)
    mixed = (mixed >> turn) | (mixed << ((np.uint64(64) - turn) & np.uint64(63)))
    return (mixed >> np.uint64(11)) * 2.0**-53


def _pool(words: np.ndarray) -> np.ndarray:
    """SeedSequence's pool `[4, n]` of up to four words of entropy, zeros after them."""
    before, after = _hashes(INIT_A, MULT_A, POOL * POOL)
    pool = _hash(words, before[:POOL], after[:POOL])
    for source in range(POOL):
        others = [i for i in range(POOL) if i != source]
        used = slice(POOL + source * (POOL - 1), POOL + (source + 1) * (POOL - 1))
        hashed = _hash(pool[source], before[used], after[used])
        mixed = MIX_L * pool[others] - MIX_R * hashed
        pool[others] = mixed ^ (mixed >> np.uint32(16))
    return pool


def _generated(pool: np.ndarray) -> np.ndarray:
    """`[4, n]` words of 64 bits that SeedSequence makes of its pool."""
    before, after = _hashes(INIT_B, MULT_B, 2 * POOL)
    words = _hash(np.concatenate([pool, pool]), before, after).astype(np.uint64)
    return words[0::2] | (words[1::2] << np.uint64(32))


def _hash(words: np.ndarray, before: np.ndarray, after: np.ndarray) -> np.ndarray:
    hashed = (words ^ before) * after
    return hashed ^ (hashed >> np.uint32(16))


@lru_cache
def _hashes(first: int, factor: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Constants `[count, 1]` of a running hash: each before and after its multiplication."""
    constants = [first * pow(factor, k, WORD) % WORD for k in range(count + 1)]
    column = np.array(constants, np.uint32)[:, None]
    return column[:-1], column[1:]


@lru_cache
def _powers(count: int) -> tuple[Wide, Wide]:
    """a^{k+2} and 1 + a + ... + a^{k+1} for k = 0, ..., count - 1."""
    powers, series = [MULTIPLIER], [1]
    for _ in range(count):
        series.append(series[-1] + powers[-1])
        powers.append(powers[-1] * MULTIPLIER % 2**128)
    return _wide(powers[1:]), _wide(series[1:])


def _wide(numbers: list[int]) -> Wide:
    halves = [divmod(number % 2**128, 2**64) for number in numbers]
    high, low = np.array(halves, np.uint64).T
    return high, low


def _plus(x: Wide, y: Wide) -> Wide:
    low = x[1] + y[1]
    return x[0] + y[0] + (low < x[1]), low


def _times(x: Wide, y: Wide) -> Wide:
    half, mask = np.uint64(32), np.uint64(WORD - 1)
    a, b, c, d = x[1] >> half, x[1] & mask, y[1] >> half, y[1] & mask
    first = a * d + ((b * d) >> half)
    second = b * c + (first & mask)
    high = a * c + (first >> half) + (second >> half)
    return high + x[0] * y[1] + x[1] * y[0], x[1] * y[1]
