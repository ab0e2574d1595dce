"""What importing an environment brings in."""

import subprocess
import sys


def test_libraries_that_only_draw_are_imported_when_something_is_drawn():
    program = """
import sys
from rlgen.envs import adapter
from gymnax.environments.misc import pong
late = {"matplotlib.pyplot", "seaborn"}
assert not late & set(sys.modules)
assert len(pong.sns.color_palette("cubehelix", 3)) == 3
import matplotlib.pyplot
assert pong.plt.subplots is matplotlib.pyplot.subplots
assert late <= set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", program], check=True)
