"""One process at a time trains in a run folder."""

import logging
import os
import pathlib
import time
from typing import IO

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

log = logging.getLogger(__name__)
PATIENCE = 20.0
"""Seconds to wait for a process that is just ending, as after a restart."""


class FolderLock:
    """Holds a run folder for this process until `release` or the end of the process, whatever ends it.

    Args:
        folder: must exist.
        patience: seconds to wait for another process.

    Raises:
        ValueError: another process holds the folder; the message names it.
    """

    def __init__(self, folder: pathlib.Path, patience: float = PATIENCE):
        self.path = folder / ".lock"
        self.file: IO[str] | None = open(self.path, "a+", encoding="utf-8")  # noqa: SIM115  (open for the whole run)
        end = time.monotonic() + patience
        while fcntl:
            try:
                # Of the process, unlike flock: loader workers that outlive their parent do not hold it.
                fcntl.lockf(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except (BlockingIOError, PermissionError):
                if time.monotonic() > end:
                    self.file.seek(0)
                    holder = self.file.read().strip() or "another process"
                    self.file.close()
                    raise ValueError(
                        f"run.output: {holder} is training in {folder}; wait for its end or give another --output"
                    ) from None
                time.sleep(0.2)
            except OSError as error:
                log.warning("%s: the file system has no locks (%s); start only one run here", folder, error.strerror)
                break
        self.file.truncate(0)
        self.file.write(f"process {os.getpid()} of {os.uname().nodename}")
        self.file.flush()

    def release(self) -> None:
        """Let others have the folder."""
        if self.file:
            self.file.close()
            self.file = None
