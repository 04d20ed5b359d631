"""Memory that the process has freed, kept for its next tensors."""

import ctypes
import os

OWN_CHOICE = ("MALLOC_MMAP_MAX_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")
"""Environment variables by which a user chooses the allocator's settings."""
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # malloc.h


def retain_memory() -> bool:
    """Let glibc keep freed memory, up to 2 GB at its end, instead of giving it back to the system.

    A large tensor otherwise is new memory each time, which the system must clear, and that can take longer than the
    kernel that fills it. The process then stays near the most memory that it has used, which was a
    sixth more in the default training run: glibc reuses a place only where more than the tensor fits.

    Returns:
        False, and nothing is changed, where the C library is another one or the user has chosen by `OWN_CHOICE`.
    """
    if os.name != "posix" or any(name in os.environ for name in OWN_CHOICE):
        return False
    library = ctypes.CDLL(None)
    if not hasattr(library, "gnu_get_libc_version"):
        return False
    return bool(library.mallopt(_MMAP_MAX, 0) and library.mallopt(_TRIM_THRESHOLD, 2**31 - 1))
