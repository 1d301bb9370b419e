#!/usr/bin/env python3
"""Times this package beside others: ratios with their spread, a table, a figure.

Every candidate has a process of its own. In each round each process is told, in random order, to
time some calls; a ratio is taken within a round, between medians of calls, and what is written is
the median of the rounds' ratios with their quartiles: a machine that is slow for a minute is slow
for all. `make bench` installs what it needs.
"""

import contextlib
import datetime
import json
import os
import pathlib
import platform
import random

import numpy as np
import pandas as pd
from absl import app, flags
from cases import COMPARISONS
from figure import draw
from processes import Worker
from tqdm import tqdm
from worker import THREADS

from deformstab.provenance import git_commit
from deformstab.tables import write_csv, write_json

ROOT = pathlib.Path(__file__).resolve().parent.parent
SECONDS = 0.4  # of calls of one candidate in a round

FLAGS = flags.FLAGS


def compare(comparison, rounds: int, progress) -> tuple[pd.DataFrame, dict]:
    """One comparison: a row a candidate, and the versions its processes found."""
    with contextlib.ExitStack() as stack:
        workers = {}
        for label, candidate in comparison.candidates.items():
            workers[label] = stack.enter_context(contextlib.closing(Worker(label, *candidate)))
        calls = {}
        for label, worker in workers.items():
            once = 0 if label in comparison.slow else min(worker.seconds(2)["seconds"])
            calls[label] = int(np.clip(SECONDS / once, 1, 100)) if once else 1
        timed = {label: [] for label in workers}
        resident = {label: [] for label in workers}
        for _ in range(min(rounds, comparison.most_rounds)):
            for label in random.sample(list(workers), len(workers)):
                answer = workers[label].seconds(calls[label])
                timed[label].append(np.median(answer["seconds"]))
                resident[label].append(answer["resident_gib"])
            progress.update()
        rows = _rows(comparison, timed, {label: w.ready for label, w in workers.items()})
        for row in rows:  # what does not grow stays at what it was
            row["growth_gib"] = resident[row["candidate"]][-1] - resident[row["candidate"]][0]
            row |= {"rounds": len(timed[row["candidate"]]), "date": str(datetime.date.today())}
            row["git_commit"] = git_commit()
        found = {label: worker.ready["versions"] for label, worker in workers.items()}
    return pd.DataFrame(rows), found


def _rows(comparison, timed, ready) -> list[dict]:
    first, rows = next(iter(timed)), []
    for label, seconds in timed.items():
        ratios = np.array(seconds) / timed[first]
        low, ratio, high = np.quantile(ratios, (0.25, 0.5, 0.75))
        bound, goal = comparison.goals.get(label, ("", np.nan))
        reached = {"least": ratio >= goal, "most": ratio <= goal, "": None}[bound]
        rows.append(
            {
                "comparison": comparison.name,
                "candidate": label,
                "seconds": np.median(seconds),
                "images_per_second": comparison.images / np.median(seconds),
                "ratio": ratio,
                "ratio_low": low,
                "ratio_high": high,
                "goal": f"at {bound} {goal:.3g}" if bound else "",
                "reached": "" if reached is None else ("yes" if reached else "no"),
                "first_call_seconds": ready[label]["first"],
                "peak_gib": ready[label]["peak_gib"],
            }
        )
    return rows


def main(argv):
    if len(argv) > 1:
        raise app.UsageError(f"unknown arguments {argv[1:]}; flags begin with --")
    words = FLAGS.only or [""]
    chosen = [each for each in COMPARISONS if any(word in each.name for word in words)]
    if not chosen:
        names = "; ".join(each.name for each in COMPARISONS)
        raise app.UsageError(f"--only={','.join(words)} names none of: {names}")
    for each in chosen:
        for label in list(each.candidates):
            if any(word in label for word in FLAGS.without or ()):
                del each.candidates[label]
    folder = pathlib.Path(FLAGS.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "timings.csv"
    tables = [pd.read_csv(path, keep_default_na=False)] if path.exists() else []
    # Of what is not timed again, the rows and the versions stay.
    about = folder / "machine.json"
    versions = json.loads(about.read_text())["versions"] if about.exists() else {}
    total = sum(min(FLAGS.rounds, each.most_rounds) for each in chosen)
    with tqdm(total=total, unit="round") as progress:
        for each in chosen:
            progress.set_description(each.name)
            table, found = compare(each, FLAGS.rounds, progress)
            versions.update(found)
            tables = [old[old["comparison"] != each.name] for old in tables] + [table]
            order = {one.name: place for place, one in enumerate(COMPARISONS)}
            whole = pd.concat(tables).sort_values(
                "comparison", key=lambda names: names.map(order), kind="stable"
            )
            write_csv(whole, path)
            progress.write(_text(table))
    machine = {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": THREADS,
        "system": platform.platform(),
        "versions": versions,
    }
    write_json(machine, about)
    draw(whole, folder / "benchmarks.png")


def _text(table) -> str:
    lines = [table["comparison"].iloc[0]]
    for row in table.itertuples():
        spread = f"{row.ratio:8.2f} [{row.ratio_low:.2f}, {row.ratio_high:.2f}]"
        goal = f"  {row.goal}: {row.reached}" if row.goal else ""
        lines.append(f"  {row.candidate:32} {row.seconds * 1e3:10.2f} ms {spread}{goal}")
    return "\n".join(lines)


def _processor() -> str:
    with contextlib.suppress(OSError), open("/proc/cpuinfo") as file:
        for line in file:
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor()


if __name__ == "__main__":
    flags.DEFINE_integer("rounds", 9, "How often each candidate is timed.", lower_bound=1)
    flags.DEFINE_list("only", None, "Words; comparisons whose names have one of them are run.")
    flags.DEFINE_list("without", None, "Words; candidates whose labels have one are left out.")
    flags.DEFINE_string("output_dir", str(ROOT / "results/benchmarks"), "Where tables go.")
    app.run(main)
