#!/usr/bin/env python3
"""Runs the examples of README.md and docs/, and writes what they print and draw where it is shown.

examples/run_pages.py                   # README.md; its pictures go to docs/
examples/run_pages.py docs/start.md …   # pages that stand on their own; pictures go beside each
examples/run_pages.py --first FOLDER    # the README's first example, in another folder

A block without a language, right below a block of code, is what that code prints. tests/test_readme.py
runs the same blocks and compares. Commands of a shell are run where their output is shown.
"""

import contextlib
import dataclasses
import io
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", flags=re.DOTALL | re.MULTILINE)


@dataclasses.dataclass
class Block:
    """A block of code, what the page shows below it (None if nothing), and where in the text that is."""

    language: str
    code: str
    shown: str | None = None
    place: slice | None = None


def blocks(text: str) -> list[Block]:
    """The blocks of code of a page, in order."""
    found, end = [], -1
    for match in _BLOCK.finditer(text):
        language, code = match.groups()
        if language:
            found.append(Block(language, code))
        elif found and not text[end : match.start()].strip():
            found[-1].shown, found[-1].place = code, slice(*match.span(2))
        end = match.end()
    return found


def run(block: Block, page: str, names: dict) -> str:
    """What a block prints. Python's runs with `names`, a shell's only if its output is shown."""
    if block.language == "python":
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(block.code, page, "exec"), names)
        return printed.getvalue()
    if block.language == "sh" and block.shown is not None:
        path = os.pathsep.join(
            [os.path.dirname(sys.executable), f"{ROOT / 'bin'}", os.environ["PATH"]]
        )
        there = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
        command = ["bash", "-euo", "pipefail", "-c", block.code]
        return subprocess.run(command, env=there, stdout=-1, text=True, check=True).stdout
    return ""


def rewrite(page: pathlib.Path, pictures: pathlib.Path) -> None:
    """Runs a page in an empty folder; outputs go into its text, pictures that it shows beside it."""
    text, outputs, names = page.read_text("utf-8"), [], {}
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        for block in blocks(text):
            print(block.code)
            outputs.append((block, run(block, page.name, names)))
            print(outputs[-1][1])
        for file in pathlib.Path(folder).glob("*.png"):
            if re.search(rf"\]\((docs/)?{re.escape(file.name)}\)", text):
                shutil.copy(file, pictures / file.name)
    for block, output in reversed(outputs):
        if block.place:
            text = text[: block.place.start] + output.rstrip() + "\n" + text[block.place.stop :]
    page.write_text(text, "utf-8")


def main():
    os.environ["MPLBACKEND"] = "Agg"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    readme = ROOT / "README.md"
    if sys.argv[1:2] == ["--first"]:
        os.chdir(sys.argv[2])
        names = {}
        for block in [
            each for each in blocks(readme.read_text("utf-8")) if each.language == "python"
        ][:2]:
            print(run(block, "README.md", names))
    elif sys.argv[1:]:
        for page in map(pathlib.Path, sys.argv[1:]):
            rewrite(page.resolve(), page.resolve().parent)
    else:
        rewrite(readme, ROOT / "docs")


if __name__ == "__main__":
    main()
