"""install.py PYTHON WHAT…: what `pip install WHAT…` does for that Python, sooner.

uv does it. It does not read pip's settings, so they are handed on; nor does it compile what it
installs, as pip does, unless it is told to. Where it fails, pip installs.
"""

import ast
import os
import subprocess
import sys

# Of pip's settings: what uv calls them, and what stands between several values.
SETTINGS = {
    "index-url": ("UV_DEFAULT_INDEX", " "),
    "extra-index-url": ("UV_INDEX", " "),
    "find-links": ("UV_FIND_LINKS", ","),
    "constraint": ("UV_CONSTRAINT", " "),
    "cert": ("SSL_CERT_FILE", " "),
}


def settings(listed: str) -> dict[str, str]:
    """Variables for uv that say what `pip config list` says; of two values the first one counts."""
    found = {"UV_INDEX_STRATEGY": "unsafe-best-match"}  # the newest of all indexes, as pip takes it
    for line in listed.splitlines():
        key, _, value = line.partition("=")
        name, between = SETTINGS.get(key.rpartition(".")[2], (None, ""))
        if name is not None:
            found.setdefault(name, between.join(ast.literal_eval(value).split()))
    return found


def main(python, *what):
    pip = [python, "-m", "pip", "--disable-pip-version-check"]
    listed = subprocess.run([*pip, "config", "list"], capture_output=True, text=True).stdout
    # Under PYTHONDONTWRITEBYTECODE, which images of containers often set, each process would compile
    # all of TensorFlow again: 20 s of the processor, where importing it takes 4.
    uv = [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--compile-bytecode"]
    environment = {**settings(listed), **os.environ}
    if subprocess.run([*uv, "--python", python, *what], env=environment).returncode:
        print("uv could not install that; pip does", file=sys.stderr)
        sys.exit(subprocess.run([*pip, "install", "--quiet", *what]).returncode)


if __name__ == "__main__":
    main(*sys.argv[1:])
