"""A random order of n things that is computed, place by place: nothing of the size of n is held.

A Feistel network permutes the numbers of 2b bits, whatever its rounds compute; a number that comes out beyond
n is put in again until one below n comes out (cycle walking; Black and Rogaway, Ciphers with Arbitrary Finite
Domains, 2002). The rounds mix with the finaliser of SplitMix64. All is integer arithmetic: the same order on
every machine.
"""

import numpy as np
from jaxtyping import Int64, UInt64

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
ROUNDS = tuple(np.uint64(number * int(GOLDEN) % 2**64) for number in range(1, 9))
MIX = ((30, np.uint64(0xBF58476D1CE4E5B9)), (27, np.uint64(0x94D049BB133111EB)))


def permuted(
    places: Int64[np.ndarray, "n"], sizes: Int64[np.ndarray, "n"], keys: UInt64[np.ndarray, "n"]
) -> Int64[np.ndarray, "n"]:
    """Return what stands at some places of random orders.

    Args:
        places: from 0 on, below the size.
        sizes: of the order that each place is in.
        keys: which order it is; see `mixed`.
    """
    length = np.frexp(sizes - 1.0)[1]  # of the largest number, in bits
    bits = np.maximum(1, (length + 1) // 2).astype(np.uint64)
    found, todo = places.astype(np.uint64), np.arange(len(places))
    while len(todo):
        found[todo] = _feistel(found[todo], bits[todo], keys[todo])
        todo = todo[found[todo] >= sizes[todo].astype(np.uint64)]
    return found.astype(np.int64)


def mixed(*parts: int | Int64[np.ndarray, "n"]) -> UInt64[np.ndarray, "n"]:
    """Return the keys of what some numbers name together, such as seed, cache and epoch."""
    key = np.zeros(1, np.uint64)
    for part in parts:
        number = np.uint64(part % 2**64) if isinstance(part, int) else part.astype(np.uint64)
        key = _mix(key * GOLDEN + number + GOLDEN)
    return key


def _feistel(
    numbers: UInt64[np.ndarray, "n"], bits: UInt64[np.ndarray, "n"], keys: UInt64[np.ndarray, "n"]
) -> UInt64[np.ndarray, "n"]:
    mask = (np.uint64(1) << bits) - np.uint64(1)
    left, right = numbers >> bits, numbers & mask
    for number in ROUNDS:
        left, right = right, left ^ (_mix(keys + number + right) & mask)
    return (left << bits) | right


def _mix(numbers: UInt64[np.ndarray, "n"]) -> UInt64[np.ndarray, "n"]:
    for shift, factor in MIX:
        numbers = (numbers ^ (numbers >> np.uint64(shift))) * factor
    return numbers ^ (numbers >> np.uint64(31))
