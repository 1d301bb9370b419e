"""Pictures of tables, and measuring files from a shell.

In: tables, or paths of model and images. Out: figures, files, text.
"""
