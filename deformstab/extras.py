"""Packages that only some uses need: where one is missing, the error names the extra that brings it."""

import contextlib
from collections.abc import Iterator


@contextlib.contextmanager
def needing(extra: str, use: str) -> Iterator[None]:
    """Around imports: a package that is missing raises an error that says what to install.

    Args:
        extra: of setup.cfg, that brings the package.
        use: what needs it, in the plural.

    Raises:
        ImportError: a package is missing; with the command that installs it.
    """
    try:
        yield
    except ImportError as error:
        raise ImportError(f'{error}; {use} need: pip install "deformstab[{extra}]"') from error
