"""Writing files that are complete or absent, never half a file; what cannot be written is named."""

import contextlib
import errno
import os
import pathlib
import re
import tempfile

# As mkstemp completes the names that write_bytes gives it.
_TEMPORARY = re.compile(r"\..+\.(json|npz|csv|md|png|pdf|h5|html)\.[a-z0-9_]{8}")


def write_bytes(content: bytes, path) -> None:
    """Writes a file so that a reader finds the old content or the new one, nothing between.

    What is there and no regular file (/dev/stdout, a pipe) is written to, not replaced.

    Raises:
        OSError: it cannot be written, a full disk for example; it names the file.
    """
    path = pathlib.Path(path)
    with _naming(path):
        if _is_device(path):
            path.write_bytes(content)
            return
        _make(path.parent)
        handle, temporary = _beside(path)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            # mkstemp makes files only their owner can read; a result is for all the folder is for.
            umask = os.umask(0)
            os.umask(umask)
            os.chmod(temporary, 0o666 & ~umask)
            os.replace(temporary, path)
        except BaseException:
            pathlib.Path(temporary).unlink(missing_ok=True)
            raise


def check_writable(path) -> None:
    """Refuses a path that `write_bytes` could not write, before the work whose result it is for.

    What it tries leaves nothing behind, folders that were missing included.

    Raises:
        OSError: the path is a folder, or cannot be written; it names the path.
    """
    path = pathlib.Path(path)
    with _naming(path):
        if path.is_dir():
            raise OSError("it is a folder")
        if _is_device(path):
            if not os.access(path, os.W_OK):
                raise OSError("permission denied")
            return
        made = [each for each in (path.parent, *path.parent.parents) if not each.exists()]
        try:
            _make(path.parent)
            handle, temporary = _beside(path)
            os.close(handle)
            os.unlink(temporary)
        finally:
            with contextlib.suppress(OSError):  # of those that could not be made
                for folder in made:
                    folder.rmdir()


def _is_device(path: pathlib.Path) -> bool:
    return path.exists() and not path.is_file() and not path.is_dir()


def _make(folder: pathlib.Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:  # which is true, and would not tell what is wrong
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR)) from None


def _beside(path: pathlib.Path) -> tuple[int, str]:
    """A temporary file in the folder of another: its handle and its path."""
    return tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)


@contextlib.contextmanager
def _naming(path):
    """Around writing: an error of the system names the file, not a temporary one, or none."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        message = f"{path} cannot be written: {reason}"
        named = OSError(message) if error.errno is None else OSError(error.errno, message)
        raise named from error


def remove_temporaries(folder, names="*") -> None:
    """Removes what a kill in the middle of `write_bytes` leaves in a folder, of these names."""
    for path in pathlib.Path(folder).glob(f".{names}.*"):
        if _TEMPORARY.fullmatch(path.name):
            path.unlink(missing_ok=True)
