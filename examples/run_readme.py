#!/usr/bin/env python3
"""Runs the README's examples in docs/, where the pictures that they save belong.

examples/run_readme.py                  # all of them, in docs/
examples/run_readme.py --first FOLDER   # the first one, in another folder
"""

import os
import pathlib
import re
import sys

os.environ["MPLBACKEND"] = "Agg"

root = pathlib.Path(__file__).resolve().parent.parent
blocks = re.findall(
    r"```python\n(.*?)```", (root / "README.md").read_text("utf-8"), flags=re.DOTALL
)
first = sys.argv[1:2] == ["--first"]
os.chdir(sys.argv[2] if first else root / "docs")
session = {}
for block in blocks[:2] if first else blocks:
    print(block)
    exec(compile(block, "README.md", "exec"), session)
