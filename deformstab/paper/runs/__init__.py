"""What is trained and measured, and where: one run a network, each kept as a file.

In: a preset. Out: `runs/<id>.json`, a file a run, with its tables in it.
"""
