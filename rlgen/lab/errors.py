"""The error that the lab's modules share; light, so that it can be had before JAX is started."""


class UsageError(ValueError):
    """Something asked for that cannot be done.  The message says what, and what could be meant."""
