"""The same measurements over training.

In: a model while it is fitted. Out: DataFrames with epoch and step, in memory and in CSV files.
"""
