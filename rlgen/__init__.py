"""rlgen: reinforcement learning and generative models as pure functions in JAX.

Import the module that holds what you need; nothing heavy is imported here::

    from rlgen.policy import ppo
    from rlgen.parts import returns
"""

__version__ = "0.1.0"
