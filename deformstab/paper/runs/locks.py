"""One process at a time writes into an output folder."""

import contextlib
import os
import pathlib

from deformstab.locks import fcntl, missing_folders, remove_empty, try_lock


@contextlib.contextmanager
def only_writer(folder):
    """Makes a folder this process's own to write in until it leaves or dies; makes the folder.

    The lock is on the folder itself, so that nothing lies in it that a kill would leave.

    Raises:
        ValueError: another process has it, or it is no folder.
    """
    folder = pathlib.Path(folder)
    for path in (folder, *folder.parents):
        if path.exists() and not path.is_dir():
            raise ValueError(
                f"{path} is no folder, which results need: choose another --output_dir"
            )
    created = missing_folders(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        stack.callback(remove_empty, created)  # nothing may come of it
        if fcntl:  # Windows opens no folders
            handle = os.open(folder, os.O_RDONLY)
            stack.callback(os.close, handle)
            if not try_lock(handle):
                raise ValueError(
                    f"another process is writing into {folder}: wait for it, or choose another "
                    "--output_dir"
                )
        yield
