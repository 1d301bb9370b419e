"""Candidates in processes of their own, timed on demand."""

import json
import pathlib
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
OTHER_PYTHON = {"tensorflow-addons": HERE.parent / ".venv-tfa/bin/python"}


class Worker:
    """A process that times one candidate."""

    def __init__(self, label, candidate, arguments):
        python = OTHER_PYTHON.get(label, pathlib.Path(sys.executable))
        if not python.exists():
            raise FileNotFoundError(f"{python} is missing; `make bench` installs it")
        script = HERE / "worker.py"
        self.errors = tempfile.TemporaryFile("w+")  # noqa: SIM115, closed below
        self.process = subprocess.Popen(
            [python, script, candidate, json.dumps(arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
        )
        self.ready = self._answer(label)

    def seconds(self, calls: int) -> dict:
        """`seconds` of so many calls, and `resident_gib` after them."""
        self.process.stdin.write(f"{calls}\n")
        self.process.stdin.flush()
        return self._answer("a timing")

    def _answer(self, what):
        line = self.process.stdout.readline()
        if not line:
            self.errors.seek(0)
            errors = self.errors.read()[-3000:]
            self.close()
            raise RuntimeError(f"the process of {what} ended:\n{errors}")
        return json.loads(line)

    def close(self):
        self.process.kill()
        self.process.communicate()
        self.errors.close()
