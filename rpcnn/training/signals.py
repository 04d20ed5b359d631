"""Requests to stop: SIGTERM and SIGUSR1, which schedulers send before they take a machine away, and Ctrl-C."""

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType

SIGNALS = [getattr(signal, name) for name in ("SIGTERM", "SIGUSR1", "SIGINT") if hasattr(signal, name)]  # Windows: two


class Stopped(SystemExit):
    """Ends the command after a signal, with the status that a shell gives for it: 128 + its number."""

    def __init__(self, number: int, message: str):
        super().__init__(message)
        self.code = 128 + number
        self.message = message


class StopRequest:
    """Context that notes signals instead of dying of them; a second one ends the process at once.

    `number` is the number of the first signal, 0 before any. Outside the main thread, where Python allows no handlers,
    nothing is noted.
    """

    def __init__(self) -> None:
        self.number = 0
        self.interrupting = False

    def __enter__(self) -> "StopRequest":
        self.before = {}
        with contextlib.suppress(ValueError):
            for number in SIGNALS:
                self.before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        again, self.number = bool(self.number), self.number or number
        if again or self.interrupting:
            self.stop("stopped at once")

    def stop(self, what: str) -> None:
        """Raise `Stopped` for the signal noted, with a message that begins with its name."""
        raise Stopped(self.number, f"rpcnn: {signal.Signals(self.number).name}: {what}")

    @contextlib.contextmanager
    def at_once(self) -> Iterator[None]:
        """Context in which a signal stops the process where it is, because nothing would be lost."""
        if self.number:
            self.stop("stopped")
        self.interrupting = True
        try:
            yield
        finally:
            self.interrupting = False
