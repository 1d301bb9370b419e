"""The reproduction of Ruderman et al. (2018), which uses the library as any user would.

In: a preset, a set of choices. Out: a folder with tables, figures, claims and their verdicts.
"""
