"""Typed keys whose generator is unrolled into the code that uses it, and orders drawn at random.

jax compiles Threefry (Salmon et al. 2011, doi:10.1145/2063384.2063405) to a loop on the CPU.  A step of an
environment or of a policy draws few numbers many times, and the loop's own cost is then most of the step's: unrolled,
a whole rollout of PPO on CartPole takes half the time, and compiles faster too.  The numbers are those of
`jax.random.key` to the last bit.

Shape legend: `N` any shape.
"""

import math

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend import random as extension

from rlgen.core import Array, Key

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_PARITY = 0x1BD11BDA
_MANY = 16  # numbers of one draw


def threefry(key: Array, high: Array, low: Array) -> tuple[Array, Array]:
    """Hashes pairs of words: Threefry-2×32 with 20 rounds.

    Args:
        key: `[2]` uint32.
        high: first words, `[*N]` uint32.
        low: second words, likewise.

    Returns:
        Two arrays `[*N]` uint32.
    """
    schedule = (key[0], key[1], key[0] ^ key[1] ^ jnp.uint32(_PARITY))
    high, low = high + schedule[0], low + schedule[1]
    for block in range(5):
        for rotation in _ROTATIONS[block % 2]:
            high = high + low
            low = high ^ ((low << jnp.uint32(rotation)) | (low >> jnp.uint32(32 - rotation)))
        high = high + schedule[(block + 1) % 3]
        low = low + schedule[(block + 2) % 3] + jnp.uint32(block + 1)
    return high, low


def _hash_of_positions(key: Array, shape: tuple[int, ...]) -> tuple[Array, Array]:
    size = math.prod(shape)
    if size >= 2**32:
        raise ValueError(f"at most 2³² numbers can be drawn from one key, not {size}")
    position = lax.iota(jnp.uint32, size).reshape(shape)
    return threefry(key, jnp.zeros_like(position), position)


def _split(key: Array, shape: tuple[int, ...]) -> Array:
    return jnp.stack(_hash_of_positions(key, shape), axis=-1)


def _random_bits(key: Array, bit_width: int, shape: tuple[int, ...]) -> Array:
    if math.prod(shape) >= _MANY:
        # XLA hashes a key anew in every loop that reads it, and with it all keys that it was split from; this keeps it.
        key = lax.optimization_barrier(key)
    high, low = _hash_of_positions(key, shape)
    if bit_width == 64:
        return (high.astype(jnp.uint64) << jnp.uint64(32)) | low.astype(jnp.uint64)
    return (high ^ low).astype(f"uint{bit_width}")


def _fold_in(key: Array, data: Array) -> Array:
    return jnp.stack(threefry(key, *extension.threefry_prng_impl.seed(data)))


_IMPLEMENTATION = extension.define_prng_impl(
    key_shape=(2,),
    seed=extension.threefry_prng_impl.seed,
    split=_split,
    random_bits=_random_bits,
    fold_in=_fold_in,  # pyright: ignore[reportArgumentType]  # jax says int and hands over an array
    name="threefry2x32_unrolled",
    tag="urf",
)


def key(seed: int) -> Key:
    """Makes a typed key, as `jax.random.key(seed)` does.

    Args:
        seed: a whole number.

    Returns:
        A scalar key.
    """
    return jax.random.key(seed, impl=_IMPLEMENTATION)


def permutation(key: Key, num: int) -> Array:
    """Draws an order of `num` things, each equally likely.  The key is consumed.

    `jax.random.permutation` sorts positions along with random words, for which XLA's CPU backend has no fast sort.
    Here one word holds both: its upper bits are random and the lower ones the position.  Where two upper bits agree,
    the position would decide; that is left to as many earlier rounds as make a tie in all of them unlikely.

    Args:
        key: of any generator.
        num: how many, less than 2³¹.

    Returns:
        `[num]` int32.
    """
    width = max((num - 1).bit_length(), 1)
    rounds = -(-2 * width // (32 - width))  # less than half a pair of `num` is then expected to tie in all of them
    order = jnp.arange(num, dtype=jnp.int32)
    for bits in jax.random.bits(key, (rounds, num)):
        words = jnp.sort((bits << width) | lax.iota(jnp.uint32, num), stable=False)
        order = order[(words & jnp.uint32(2**width - 1)).astype(jnp.int32)]
    return order
