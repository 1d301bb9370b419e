"""One process at a time writes a file: locks that end with the process, whatever ends it."""

import contextlib
import os
import pathlib
import threading
import weakref

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None


def try_lock(handle) -> bool:
    """Locks an open file or folder until it is closed; `False` if another process has it locked.

    Where nothing can be locked (Windows, some network file systems) everything is free.
    """
    if fcntl is None:
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        pass
    return True


def missing_folders(folder) -> list[pathlib.Path]:
    """The folder and those above it that do not exist, the innermost first."""
    return [path for path in (folder, *folder.parents) if not path.exists()]


def remove_empty(folders) -> None:
    """Removes folders, the innermost first, as long as there is nothing in them."""
    with contextlib.suppress(OSError):
        for folder in folders:
            folder.rmdir()


_held = weakref.WeakValueDictionary()  # real path → the lock that this process has on it
_guard = threading.Lock()


class FileLock:
    """The right to write a file, which one object of one process has at a time.

    The lock is on a hidden file beside it, `.NAME.lock`: the file itself is replaced whenever it is
    written. What a kill leaves of it holds nobody up.

    An object takes the lock over from another one of the same thread: training there ended without
    saying so, by an exception. If it did not end after all, `check` tells the earlier one.

    Args:
        path: of the file.
    """

    def __init__(self, path):
        self._path = pathlib.Path(path)
        self._place, self._handle, self._closing = None, None, None

    def acquire(self) -> None:
        """Takes the lock, and makes the file's folder.

        Raises:
            ValueError: another process, or another thread, has it.
            OSError: the folder cannot be written.
        """
        with _guard:
            self._place = os.path.realpath(self._path)
            holder = _held.get(self._place)
            if holder is self:
                return
            if holder is not None:
                if holder._thread is not threading.current_thread() and holder._thread.is_alive():
                    raise ValueError(f"another thread is writing {self._path}")
                holder._close()
            created = missing_folders(self._path.parent)
            beside = self._path.with_name(f".{self._path.name}.lock")
            try:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                self._handle = _open_locked(beside)
            except BaseException:
                remove_empty(created)
                raise
            if self._handle is None:
                raise ValueError(f"another process is writing {self._path}")
            self._thread = threading.current_thread()
            self._closing = weakref.finalize(self, _close, self._handle, beside, created)
            _held[self._place] = self

    def check(self) -> None:
        """Raises a `ValueError` if another object of this process has taken the lock over."""
        if _held.get(self._place) is not self:
            raise ValueError(f"something else in this process has begun to write {self._path}")

    def release(self) -> None:
        """Leaves the file to others; nothing happens if the lock is not held."""
        with _guard:
            self._close()

    def _close(self):
        if self._handle is not None:
            self._closing()
            self._handle = None
            if _held.get(self._place) is self:
                del _held[self._place]


def _open_locked(path):
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        if not try_lock(handle):
            os.close(handle)
            return None
        # Whoever had it before may have removed it between opening and locking.
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(handle), os.stat(path)):
                return handle
        os.close(handle)


def _close(handle, path, created):
    removing = contextlib.suppress(OSError)
    if fcntl is not None:  # while it is locked: nobody else has it yet
        with removing:
            path.unlink()
    os.close(handle)
    if fcntl is None:  # Windows removes no open file
        with removing:
            path.unlink()
    remove_empty(created)


def _forget_in_child():
    """A fork's copies of the handles would hold the locks on when this process is killed."""
    global _guard
    for lock in list(_held.values()):
        lock._closing.detach()
        os.close(lock._handle)
        lock._handle = None
    _held.clear()
    _guard = threading.Lock()  # which another thread may have held


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_in_child)
