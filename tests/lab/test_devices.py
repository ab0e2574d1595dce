"""Devices: what is set up unless the user has set it."""

import os
import subprocess
import sys

import pytest

from rlgen.lab import devices


@pytest.mark.parametrize("mine", [None, "/nowhere/mine"])
def test_compiled_programs_are_kept_unless_the_user_keeps_them_elsewhere(mine):
    kept = "JAX_COMPILATION_CACHE_DIR"
    environment = {name: value for name, value in os.environ.items() if name != kept} | ({kept: mine} if mine else {})
    say = "import jax; from rlgen.lab import devices; devices.configure('auto'); print(jax.config.{})"
    command = [sys.executable, "-c", say.format("jax_compilation_cache_dir")]
    said = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    assert said.strip() == (mine or str(devices.cache_folder()))
