"""``rpcnn COMMAND``: commands by name, and uniform error handling."""

import os
import subprocess
import sys

import pytest

from rpcnn.__main__ import COMMANDS, main
from rpcnn.commands import UserError, output_folder, user_errors, words_and_options


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


@pytest.mark.parametrize("name", ["file", "file/below"])
def test_an_output_that_cannot_be_a_folder_is_named(name, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=f"--output.*{tmp_path / name}"):
        output_folder(tmp_path / name)


def test_a_reader_that_closes_the_pipe_is_no_traceback():
    command = f"{sys.executable} -m rpcnn train --help | head -1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True)
    assert "Traceback" not in done.stderr and done.stdout.count("\n") == 1


def test_words_come_before_options():
    assert words_and_options(["a", "b", "--c", "d"]) == (["a", "b"], ["--c", "d"])


def python(*arguments, **environment):
    command = [sys.executable, *arguments]
    return subprocess.run(
        command, capture_output=True, encoding="utf-8", errors="replace", env={**os.environ, **environment}
    )


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_a_terminal_that_is_not_utf_8_ends_no_command(encoding):
    for module in ("train", "report"):
        done = python("-m", f"rpcnn.{module}", "--help", PYTHONIOENCODING=encoding)
        assert done.returncode == 0 and "rpcnn" in done.stdout, done.stderr


def test_ctrl_c_is_one_line():
    code = "import signal; from rpcnn.commands import run; "
    code += "signal.signal(signal.SIGINT, signal.default_int_handler); "  # ignored where a shell started it with &
    code += "run(lambda: signal.raise_signal(signal.SIGINT))"
    done = python("-c", code)
    assert done.returncode == 130 and done.stderr == "rpcnn: stopped by Ctrl-C; files that were finished are whole\n"
