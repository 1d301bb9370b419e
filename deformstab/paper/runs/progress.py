"""How far the runs are, on the terminal: a bar that ends no run, whoever reads it or not."""

import contextlib
import sys

from tqdm import tqdm

from deformstab.presentation.streams import surviving


@contextlib.contextmanager
def progress_bar(experiments):
    """A bar over runs, as long as each is expected to take.

    Args:
        experiments: that are to be run.

    Yields:
        A function to call with (experiment,) before and (experiment, seconds) after each run.
    """
    bar = tqdm(
        total=sum(each.cost for each in experiments),
        bar_format="{percentage:3.0f}% |{bar:24}| {elapsed} passed, {remaining} left · {desc}",
        mininterval=0,
        file=surviving(sys.stderr),
    )
    started = iter(range(1, len(experiments) + 1))

    def progress(experiment, seconds=None):
        if seconds is None:
            name = experiment.id.rsplit("-", 1)[0]
            bar.set_description_str(f"run {next(started)} of {len(experiments)}: {name}")
        else:
            bar.update(min(experiment.cost, bar.total - bar.n))  # tqdm warns of more

    with bar:
        yield progress
        bar.set_description_str(f"{len(experiments)} runs finished")
