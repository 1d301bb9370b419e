"""Every figure of the reproduction, one module a figure, with the same functions in each.

In: `Results`, the tables of a folder. Out: `plot(results)` a figure, `caption(results)` its text.
"""
