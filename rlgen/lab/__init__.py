"""The impure shell: command line, run folders, data, statistics, plots and reports."""

import os

# XLA warns at length whenever a compiled CPU program comes out of the cache, about preferences of its own compiler that
# are no features of the machine.  It reads this when JAX is first imported.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
