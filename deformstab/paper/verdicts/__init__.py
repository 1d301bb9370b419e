"""What the runs say about each claim of the paper: statistic, interval, test, verdict.

In: the tables of all runs. Out: DataFrames, a row a claim.
"""
