"""The Markdown pages of a folder of results.

In: the tables and the verdicts. Out: the text of `claims.md` and of the folder's `README.md`.
"""
