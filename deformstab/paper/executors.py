"""Where runs run.

An executor is called with the experiments, a function that runs one, and one to tell which has been
started; it yields (experiment, what the function gave) as they end.
"""


def serial(experiments, execute, started):
    """One after the other, in this process."""
    for experiment in experiments:
        started(experiment)
        yield experiment, execute(experiment)
