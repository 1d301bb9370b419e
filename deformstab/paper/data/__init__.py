"""The images that networks of the reproduction learn and are measured on.

In: the name of a data set, and a path if it is on disk. Out: a Dataset of arrays and labels.
"""
