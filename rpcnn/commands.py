"""What all commands share: words before options, and one way to fail."""

import contextlib
import sys
from collections.abc import Iterator, Sequence


class UserError(SystemExit):
    """Ends a command with a line on stderr that begins with "rpcnn: " and exit status 2, as an unknown option does."""

    def __init__(self, message: object):
        super().__init__(f"rpcnn: {message}")
        print(self, file=sys.stderr)
        self.code = 2


@contextlib.contextmanager
def user_errors(*also: type[Exception]) -> Iterator[None]:
    """What a file, folder or value named on the command line makes fail ends the command as `UserError`."""
    try:
        yield
    except (ValueError, OSError, *also) as error:
        raise UserError(error) from None


def words_and_options(arguments: Sequence[str] | None) -> tuple[list[str], list[str]]:
    """The words before the first option, and the rest. Of the process where `arguments` is None."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    first = next((number for number, text in enumerate(arguments) if text.startswith("-")), len(arguments))
    return arguments[:first], arguments[first:]


def wants_help(options: Sequence[str]) -> bool:
    """Whether -h or --help is among them."""
    return bool({"-h", "--help"} & set(options))
