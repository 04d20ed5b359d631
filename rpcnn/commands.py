"""Shared by all commands: splitting the command line, and errors of the user."""

import contextlib
import io
import os
import pathlib
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import NoReturn

from rpcnn.runtime.allocator import retain_memory


class UserError(SystemExit):
    """Ends the command with a line on stderr that begins with "rpcnn: " and with exit status 2."""

    def __init__(self, message: object):
        super().__init__(f"rpcnn: {message}")
        print(self, file=sys.stderr)
        self.code = 2


@contextlib.contextmanager
def user_errors(*also: type[Exception]) -> Iterator[None]:
    """Context that turns ValueError, OSError and the exceptions `also` into `UserError`."""
    try:
        yield
    except BrokenPipeError:  # nobody reads on, and nobody made a mistake
        raise
    except (ValueError, OSError, *also) as error:
        raise UserError(error) from None


def run(main: Callable[[], object]) -> NoReturn:
    """Run a command and exit: with what it returns where that is a number, 130 after Ctrl-C, 141 where nobody reads.

    Characters that the terminal or file cannot take are replaced; they never end a command. Freed memory is kept.
    """
    retain_memory()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        result = main()
        sys.stdout.flush()
    except BrokenPipeError:  # rpcnn … | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except KeyboardInterrupt:
        print("rpcnn: stopped by Ctrl-C; files that were finished are whole", file=sys.stderr)
        sys.exit(130)
    sys.exit(result if isinstance(result, int) else 0)


def output_folder(path: str | pathlib.Path) -> pathlib.Path:
    """Make the folder that --output names, before any work. Raises ValueError if it cannot be made or written."""
    path = pathlib.Path(path)
    if path.exists() and not path.is_dir():
        raise ValueError(f"--output must be a folder, {path} is a file")
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"--output: the folder {path} cannot be made: {error.strerror}") from None
    try:
        tempfile.TemporaryFile(dir=path).close()
    except OSError as error:
        raise ValueError(f"--output: the folder {path} cannot be written: {error.strerror}") from None
    return path


def words_and_options(arguments: Sequence[str] | None) -> tuple[list[str], list[str]]:
    """Split arguments into the words before the first option, and the rest; None takes those of the process."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    first = next((number for number, text in enumerate(arguments) if text.startswith("-")), len(arguments))
    return arguments[:first], arguments[first:]


def wants_help(options: Sequence[str]) -> bool:
    """Whether -h or --help is among the options."""
    return bool({"-h", "--help"} & set(options))
