"""The version of the package, and the one of its numbers."""

__version__ = "0.1.0"

# What a run gives: part of what identifies a finished run (`deformstab/paper/runs/runs.py`). It takes
# the package's version when a run would give other numbers, and stays where only sums are rounded
# otherwise: a release then leaves finished runs alone.
NUMBERS = "0.1.0"
