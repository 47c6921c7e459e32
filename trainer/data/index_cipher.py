"""Pseudo-random permutation of 0 … count − 1 whose value at any single place can be computed.

TensorFlow's RandomIndexShuffle: the block cipher Simon (Beaulieu et al. 2013) with blocks of at
least 16 bits. A result of `count` or more is encrypted again, until one is below (Black and Rogaway
2002). TensorFlow has no inverse, so it is computed here.
"""

import math

import numpy as np
from jaxtyping import Int64, UInt64

# Number of rounds of the cipher, which must be even. TensorFlow's default of 4 leaves neighbours
# visibly correlated.
_ROUNDS = 16
_MIN_BITS = 16  # of a block
# Simon's constants, of which a key schedule takes as many bits as half a block has.
_C, _Z = 0xFFFFFFFC, 0x7369F885192C0EF5


def shuffled(
    key: np.random.SeedSequence, places: Int64[np.ndarray, " n"], count: int
) -> Int64[np.ndarray, " n"]:
    """Return the images of the given places under a permutation of 0 … count − 1.

    >>> shuffled(np.random.SeedSequence(0), np.arange(5), 5).tolist()
    [0, 2, 3, 4, 1]
    """
    if not _lacks_last(count):
        return _encrypted(key, places, count)
    found = _encrypted(key, places, count + 1)
    return np.where(found == count, _encrypted(key, np.array([count]), count + 1), found)


def unshuffled(
    key: np.random.SeedSequence, images: Int64[np.ndarray, " n"], count: int
) -> Int64[np.ndarray, " n"]:
    """Return the places that `shuffled` maps to the given images.

    >>> key = np.random.SeedSequence(0)
    >>> unshuffled(key, shuffled(key, np.arange(5), 5), 5).tolist()
    [0, 1, 2, 3, 4]
    """
    if not _lacks_last(count):
        return _decrypted(key, images, count)
    found = _decrypted(key, images, count + 1)
    return np.where(found == count, _decrypted(key, np.array([count]), count + 1), found)


def _lacks_last(count: int) -> bool:
    """Return whether TensorFlow's blocks lack the last number, so that it draws another one twice.

    Then the permutation is that of one number more, which is passed over.

    >>> [count for count in range(2, 70_000) if _lacks_last(count)]
    [65537]
    """
    return count > 1 << _MIN_BITS and count - 1 == 1 << _block_bits(count)


def _encrypted(
    key: np.random.SeedSequence, places: Int64[np.ndarray, " n"], count: int
) -> Int64[np.ndarray, " n"]:
    from trainer.data.cpu_tensorflow import tf

    # This calls the op itself, since tf.random.experimental.index_shuffle fixes the rounds.
    found = tf.raw_ops.RandomIndexShuffle(
        index=tf.constant(places, tf.int64),
        seed=tf.constant(key.generate_state(3)),
        max_index=tf.constant(count - 1, tf.int64),
        rounds=_ROUNDS,
    )
    return found.numpy()


def _decrypted(
    key: np.random.SeedSequence, images: Int64[np.ndarray, " n"], count: int
) -> Int64[np.ndarray, " n"]:
    if count <= 1 << _MIN_BITS:
        # A block holds many times `count`, so that a walk back would be long. A table is short.
        return np.argsort(_encrypted(key, np.arange(count), count))[images]
    half = _block_bits(count) // 2
    round_keys = _round_keys(key, half)
    places = images.astype(np.uint64)
    walking = np.arange(len(places))
    while walking.size:
        places[walking] = _decrypted_blocks(places[walking], round_keys, half)
        walking = walking[places[walking] >= count]
    return places.astype(np.int64)


def _block_bits(count: int) -> int:
    """Return the size of the cipher's blocks in bits, which is even.

    >>> _block_bits(9), _block_bits(2**18), _block_bits(2**18 + 2)
    (16, 18, 20)
    """
    bits = math.ceil(math.log2(count - 1))
    return max(bits + bits % 2, _MIN_BITS)


def _round_keys(key: np.random.SeedSequence, half: int) -> list[int]:
    """Return Simon's key of each round, of `half` bits."""
    mask = (1 << half) - 1
    keys = [int(word) & mask for word in key.generate_state(3)]
    for number in range(_ROUNDS - 3):
        last = keys[-1]
        turned = _rotated(last, half - 3, half) ^ _rotated(last, half - 4, half)
        bit = (_Z & mask) >> number & 1
        keys.append((_C & mask) ^ bit ^ keys[-3] ^ turned)
    return keys


def _rotated(value: int, by: int, half: int) -> int:
    """Rotate the bits of half a block to the left.

    >>> bin(_rotated(0b10000001, 1, 8))
    '0b11'
    """
    return (value << by | value >> (half - by)) & ((1 << half) - 1)


def _decrypted_blocks(
    blocks: UInt64[np.ndarray, " n"], round_keys: list[int], half: int
) -> UInt64[np.ndarray, " n"]:
    """Return the blocks that the cipher encrypts to the given blocks."""
    mask, width = np.uint64((1 << half) - 1), np.uint64(half)

    def mixed(x: UInt64[np.ndarray, " n"]) -> UInt64[np.ndarray, " n"]:
        by_1, by_2, by_8 = (
            (x << np.uint64(by) | x >> np.uint64(half - by)) & mask for by in (1, 2, 8)
        )
        return by_1 & by_8 ^ by_2

    left, right = blocks >> width, blocks & mask
    for number in range(_ROUNDS - 1, 0, -2):
        right = right ^ mixed(left) ^ np.uint64(round_keys[number])
        left = left ^ mixed(right) ^ np.uint64(round_keys[number - 1])
    return left << width | right
