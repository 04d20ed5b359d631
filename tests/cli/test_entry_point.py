"""``rpcnn COMMAND``: commands by name, and uniform error handling."""

import subprocess
import sys

import pytest

from rpcnn.__main__ import COMMANDS, main
from rpcnn.commands import UserError, user_errors, words_and_options


def test_it_lists_its_commands_without_torch():
    code = "import sys; from rpcnn.__main__ import main; main([]); assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert all(f"  {command} " in done.stdout for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command, capsys):
    try:
        main([command, "--help"])
    except SystemExit as end:
        assert end.code == 0
    assert "rpcnn" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [
        ["trian"],
        ["train", "no_such_preset"],
        ["train", "--no-such-option"],
        ["train", "--device", "tpu"],
        ["evaluate", "nowhere"],
        ["evaluate", "--predictions", "nowhere", "--data-root", "nowhere"],
        ["predict", "nowhere.jpg"],
        ["analyze", "bonds"],
        ["analyze", "bounds", "nowhere"],
        ["convert", "nowhere.pth", "out.safetensors"],
        ["data", "check", "nowhere"],
        ["data", "show", "nowhere"],
    ],
    ids=" ".join,
)
def test_user_errors_exit_with_status_2(arguments, capsys):
    with pytest.raises(SystemExit) as end:
        sys.exit(main(arguments))
    assert end.value.code == 2
    assert "Traceback" not in capsys.readouterr().err


def test_a_user_error_is_one_line_prefixed_rpcnn(capsys):
    with pytest.raises(UserError, match="rpcnn: no such thing"), user_errors():
        raise ValueError("no such thing")
    assert capsys.readouterr().err == "rpcnn: no such thing\n"
    with pytest.raises(KeyError), user_errors():
        raise KeyError("ours")


def test_words_come_before_options():
    assert words_and_options(["a", "b", "--c", "d"]) == (["a", "b"], ["--c", "d"])
