"""What a `Config` refuses: names that are unknown and numbers that do not fit together."""

from collections.abc import Collection
from typing import Any


def one_of(config: Any, **known: Collection[str]) -> None:
    """Refuses names that nothing is known by.

    Args:
        config: an algorithm's.
        **known: names that a field may have, by the field's name.

    Raises:
        ValueError: if a field has another; it says which there are.
    """
    for name, choices in known.items():
        if getattr(config, name) not in choices:
            raise ValueError(f"config.{name}={getattr(config, name)!r} is not one of {', '.join(choices)}")


def divides(config: Any, name: str, num: int, what: str) -> None:
    """Refuses a field that something cannot be dealt out among.

    Args:
        config: an algorithm's.
        name: of the field.
        num: how many there are of it.
        what: they are.

    Raises:
        ValueError: if there would be a rest.
    """
    if num % getattr(config, name):
        raise ValueError(f"config.{name}={getattr(config, name)} does not divide {what}")


def rollouts_divided(config: Any, *names: str) -> None:
    """Refuses numbers of minibatches that the steps of a rollout cannot be dealt into.

    Args:
        config: with `num_envs` and `rollout_length`.
        *names: of the fields.

    Raises:
        ValueError: if there would be a rest.
    """
    for name in names:
        num = config.num_envs * config.rollout_length
        divides(config, name, num, f"{config.num_envs} environments × {config.rollout_length} steps")
