"""Every Python block of the pages runs, and every command line of ours is one that its command understands.

The Python blocks of a page run one after the other in one namespace, in a folder with the pictures and the run that
pages speak of. Command lines are parsed by the command itself, which is stopped before its work. A block that cannot be
run here has the reason above it: <!-- not run: reason -->.
"""

import argparse
import functools
import importlib.util
import re
import runpy
import shlex
import shutil
import sys
import tomllib

import pytest
import tyro
from helpers.markdown import PAGES, ROOT, blocks, name_of

from rpcnn.config import Config, load_config
from rpcnn.runtime import distributed

TESTED_ELSEWHERE = {"docs/datasets.md": "tests/cli/test_datasets_guide.py"}
"""Pages with a test of their own, which does the work that is only parsed here."""
SNIPPETS = [page for page in PAGES if name_of(page) not in TESTED_ELSEWHERE]
FOREIGN = {"cd", "git", "ruff", "clang-format", "mypy", "mkdocs", "pre-commit", "export"}
"""Commands of other people, which are not looked at."""
RUN_WHOLE = {"rpcnn.info", "rpcnn.predict", "rpcnn.metrics.docs"}
"""Commands that are quick enough here to do their work."""


class Understood(BaseException):
    """Raised where a command has parsed its arguments, in place of its work."""


@pytest.mark.parametrize("page", [page for page in SNIPPETS if blocks(page, "python")], ids=name_of)
def test_python_runs(page, workshop):
    names = {"__name__": "page"}
    for block in blocks(page, "python"):
        if not block.not_run:
            # The empty lines make a traceback name the line of the page.
            exec(compile("\n" * (block.line - 1) + block.text, str(page), "exec"), names)


@pytest.mark.parametrize("block", [block for page in SNIPPETS for block in blocks(page, "toml")], ids=str)
def test_toml_loads(block, tmp_path):
    (tmp_path / "mine.toml").write_text(block.text)
    load_config(tmp_path / "mine.toml")


@pytest.mark.filterwarnings("ignore:.*found in sys.modules")  # runpy's, of a command that is imported already
@pytest.mark.parametrize("page", [page for page in SNIPPETS if blocks(page, "sh")], ids=name_of)
def test_commands_are_understood(page, workshop, monkeypatch, capsys):
    for block in blocks(page, "toml"):
        (workshop / "mine.toml").write_text(block.text)
    for block in blocks(page, "sh"):
        for words in () if block.not_run else commands(block.text):
            try:
                try_command(words, workshop, monkeypatch)
            except (Exception, SystemExit) as error:
                pytest.fail(f"{block}: {shlex.join(words)}: {error!r}\n{capsys.readouterr().err}")


def commands(text: str) -> list[list[str]]:
    """The commands of a sh block as words. Variables of for loops have their first value; other assignments go."""
    found = []
    for name, value in re.findall(r"for (\w+) in (\S+)", text):
        text = text.replace(f"${name}", value)
    for line in text.replace("\\\n", " ").splitlines():
        line = re.sub(r"^\s*(for .*; )?do( |$)|^\s*done\s*$|^\s*for .*; do$", "", line)
        for command in line.split("&&"):
            words = shlex.split(command, comments=True)
            while words and re.match(r"\w+=", words[0]):
                words.pop(0)
            if words:
                found.append(words)
    return found


def try_command(words, folder, monkeypatch):
    """Raises where a command, an option, a file of the repository, a marker or an extra does not exist."""
    program, *arguments = words
    if program == "torchrun" or words[:2] == ["python", "-m"]:
        module, *arguments = words[words.index("-m") + 1 :]
        if module.split(".")[0] == "rpcnn":
            try_ours(module, arguments, folder, monkeypatch)
    elif program == "rpcnn":
        try_ours("rpcnn", arguments, folder, monkeypatch)
    elif program == "python":
        script = (ROOT / arguments[0]).read_text(encoding="utf-8")
        missing = [word for word in arguments[1:] if word.startswith("--") and f'"{word}"' not in script]
        assert not missing or arguments[0] == "setup.py", f"{arguments[0]} has no {', '.join(missing)}"
    elif program == "pip":
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        wanted = re.findall(r"\w+", "".join(re.findall(r"\[(.+)\]", arguments[-1])))
        assert set(wanted) <= set(extras), f"the extras are {', '.join(extras)}"
    elif program == "pytest":
        markers = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]["markers"]
        for option, word in zip(["", *arguments], arguments, strict=False):
            if option == "-m":
                assert word in [marker.split(":")[0] for marker in markers], f"no marker {word}"
            elif not word.startswith("-"):
                assert (ROOT / word.split("::")[0]).exists(), f"no {word}"
    elif program == "just":
        recipes = re.findall(r"^([\w-]+).*:", (ROOT / "justfile").read_text(), re.M)
        assert set(arguments) <= set(recipes), f"the recipes are {', '.join(recipes)}"
    else:
        assert program in FOREIGN, "nobody looks at this command; teach try_command about it"


def try_ours(module, arguments, folder, monkeypatch):
    """`python -m module arguments`, up to the work that follows their parsing."""
    arguments = [pattern_to_name(word) for word in arguments]
    for word in weights_in(module, arguments):
        stand_in(folder / word, folder / "runs" / "painted")
    with monkeypatch.context() as patch:
        patch.setattr(sys, "argv", [module, *arguments])
        if module not in RUN_WHOLE:
            patch.setattr(distributed, "start", stop)  # train: its whole configuration is checked by then
            if module != "rpcnn.train":
                patch.setattr(tyro, "cli", stop_after(tyro.cli))
            patch.setattr(tyro.extras, "subcommand_cli_from_dict", without_work(tyro.extras.subcommand_cli_from_dict))
            patch.setattr(argparse.ArgumentParser, "parse_args", stop_after(argparse.ArgumentParser.parse_args))
        try:
            runpy.run_module(module, run_name="__main__", alter_sys=False)
        except Understood:
            return
        except SystemExit as end:
            if end.code not in (0, None):
                raise
        assert module in RUN_WHOLE, "it did its work before it had parsed its arguments"


def pattern_to_name(word: str) -> str:
    """What a shell would make of a pattern of run folders: a name."""
    return re.sub(r"[*?]", "0", word) if word.startswith("runs/") else word


def weights_in(module: str, arguments: list[str]) -> list[str]:
    """The words that name a run folder or its weights."""
    named = [arguments[i + 1] for i, word in enumerate(arguments) if word in ("--weights", "--init-weights")]
    if "rpcnn.train" in module or "--predictions" in arguments:
        return named
    options = (i for i, word in enumerate(arguments) if word.startswith("-"))
    words = (
        arguments[: next(options, len(arguments))]
        if module in ("rpcnn.evaluate", "rpcnn.analyze", "rpcnn.report")
        else []
    )
    return named + [word for word in words if "/" in word or word.isupper() or word.endswith(".safetensors")]


def stand_in(path, run):
    """Makes `path` a copy of the run, or of its weights, where nothing is there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".safetensors" and not path.exists():
        shutil.copy(run / "model.safetensors", path)
    elif not path.exists():
        shutil.copytree(run, path)


def stop_after(function):
    @functools.wraps(function)
    def stopped(*arguments, **options):
        function(*arguments, **options)
        raise Understood

    return stopped


def stop(*arguments, **options):
    raise Understood


def without_work(subcommands):
    """tyro's function over a table of commands, each of which only stops."""

    def stopped(table, **options):
        idle = {name: functools.wraps(command)(lambda *a, **o: stop()) for name, command in table.items()}
        return subcommands(idle, **options)

    return stopped


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_names_in_the_text_exist(page):
    text = page.read_text(encoding="utf-8")
    for module in set(re.findall(r"python -m (rpcnn[\w.]*)", text)):
        assert importlib.util.find_spec(module.rstrip(".")), f"no module {module}"
    for group, field in set(re.findall(r"--(data|model|loss|sampling|inference|train|run)\.([a-z][\w-]+)", text)):
        assert hasattr(getattr(Config(), group), field.replace("-", "_")), f"no option --{group}.{field}"
    for path in set(re.findall(r"`((?:rpcnn|csrc|tests|benchmarks|configs|examples|docs)/[\w/.]+\.\w+)`", text)):
        assert (ROOT / path).exists(), f"no file {path}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[\w-]*)?\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), f"no {target}"


def test_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").split()) <= 1200
