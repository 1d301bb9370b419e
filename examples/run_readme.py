#!/usr/bin/env python3
"""Runs the README's examples in docs/, where the pictures that they save belong."""

import os
import pathlib
import re

os.environ["MPLBACKEND"] = "Agg"

root = pathlib.Path(__file__).resolve().parent.parent
blocks = re.findall(
    r"```python\n(.*?)```", (root / "README.md").read_text("utf-8"), flags=re.DOTALL
)
os.chdir(root / "docs")
session = {}
for block in blocks:
    print(block)
    exec(compile(block, "README.md", "exec"), session)
