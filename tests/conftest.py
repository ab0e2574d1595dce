"""Sets jax up before its backend starts: two devices to shard over, and quick compilation, which processes inherit.

Tests compile much and compute little, so that XLA's expensive passes cost more than they save here, and so does the
newer of its two ways to write fused loops.  A trace makes millions of small objects and few cycles: at Python's own
threshold a fifth of the time would go into looking for them.  What takes long to compile is kept in the user's cache
folder, unless `JAX_COMPILATION_CACHE_DIR` names another, so that it is not compiled again the next time.
"""

import gc
import os
import signal

os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_cpu_use_fusion_emitters=false"
os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"

import jax
import pytest

from rlgen.lab import devices

gc.set_threshold(200_000, 50, 100)
signal.signal(signal.SIGINT, signal.default_int_handler)  # shells let their background ignore it, and tests send it
jax.config.update("jax_num_cpu_devices", 2)
if jax.config.values["jax_compilation_cache_dir"] is None:
    kept = devices.cache_folder()
    jax.config.update("jax_compilation_cache_dir", str(kept.parent / "tests" / kept.name))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds what makes the tests thorough."""
    parser.addoption("--every-row", action="store_true", help="try the laws on every row of the catalogue")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Leaves out what one accelerator alone cannot do; the CPU always has two devices here."""
    if item.get_closest_marker("two_devices") and jax.device_count() < 2:
        pytest.skip("needs two devices")


@pytest.fixture(scope="session")
def probe():
    """All discrete probes as one, so that an algorithm compiles once to learn from them all.

    Situations 0 and 1 are one step, where action 0 and action 1 earn 1 and the other one −1; 2, 3 and 4 follow each
    other and then terminate, with reward 1 but for action 0 in situation 3, which earns −1; 5 goes on for ever with
    reward 1 and is cut after four steps.
    """
    # Imported late: gymnax starts jax's backend.
    import jax.numpy as jnp

    from rlgen.envs import probes

    wrong = jnp.array([1, 0, -1, 0, -1, -1])  # the action that earns −1

    def reward(situation, action):
        return jnp.where(action == wrong[situation], -1.0, 1.0)

    table = probes.Table(
        (-1.0, -0.6, -0.2, 0.2, 0.6, 1.0), (0, 1, 2, 5), (-1, -1, 3, 4, -1, 5), reward, (0, 1, 0, 1, 0, 0)
    )
    return probes.Probe("Everything", table, tabular=True, max_steps=4)
