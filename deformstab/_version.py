"""The version: part of what identifies a finished run (`deformstab/paper/runs/runs.py`)."""

__version__ = "0.1.0"
