"""What a `Config` refuses: names that are unknown and numbers that do not fit together; and what is an image."""

from collections.abc import Collection
from typing import Any

from rlgen.core import NOTHING, Box


def is_image(space: Any) -> bool:
    """Tells whether a space is of images `[H, W, C]` of bytes."""
    return isinstance(space, Box) and len(space.shape) == 3 and space.dtype == "uint8"


def one_agent(spec: Any) -> None:
    """Refuses a task with several agents.

    Raises:
        ValueError: if it is one.
    """
    if isinstance(spec.action, tuple):
        raise ValueError(f"a task with {len(spec.action)} agents is none for this algorithm, which is of one agent")


def reads_nothing(spec: Any) -> None:
    """Refuses to read what a generator would take for a batch of nothings.

    Args:
        spec: of the task.

    Raises:
        ValueError: if there is anything to read.
    """
    if spec.observation != NOTHING:
        raise ValueError(f"a generator without a condition reads nothing; got observations in {spec.observation}")


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
    if getattr(config, name) > 0 and num % getattr(config, name):  # what is not, is refused with the other numbers
        raise ValueError(f"config.{name}={getattr(config, name)} does not divide {what}")


def two_atoms(config: Any) -> None:
    """Refuses a categorical distribution of a single atom.

    Raises:
        ValueError: if so.
    """
    if config.head == "categorical" and config.num_atoms < 2:
        raise ValueError(f"config.num_atoms={config.num_atoms}: a categorical distribution needs two atoms or more")


def normalisable(config: Any, num_examples: int) -> None:
    """Refuses to normalise the advantage of an example that stands alone.

    Args:
        config: with `normalise_advantages`.
        num_examples: whose advantages are normalised together.

    Raises:
        ValueError: if it is one, of which nothing would be left.
    """
    if config.normalise_advantages and num_examples == 1:
        raise ValueError(
            "config.normalise_advantages leaves nothing of the advantage of a single example: more steps, or fewer"
            " minibatches or workers, are needed"
        )


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
