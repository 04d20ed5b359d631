"""Some random cases of every field, and the promise that whatever goes wrong in a case is recorded."""

import ctypes
import subprocess
import sys
import time

import pytest
from helpers.layouts import needs_kernels

from tests.fuzz import __main__ as command
from tests.fuzz.fields import FIELDS
from tests.fuzz.run import ROOT, Finding, run, run_here, source

pytestmark = needs_kernels


def test_some_cases_of_every_field_find_nothing():
    words = [
        sys.executable,
        "-m",
        "tests.fuzz",
        *FIELDS,
        "--child",
        "--cases",
        "25",
        "--seed",
        "7",
    ]  # one child for all
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-300:] + done.stderr[-3000:]
    lines = done.stdout.splitlines()
    assert [line for line in lines if line.startswith('"')] == [] and len(lines) == 25 * len(FIELDS)


def test_a_case_depends_on_its_seed_field_and_number_alone():
    draws = {(s, f, k): source(f, s, k).random() for s in (0, 1) for f in ("ops", "weights") for k in (0, 1)}
    assert len(set(draws.values())) == 8 and source("ops", 1, 1).random() == draws[1, "ops", 1]


def test_a_wrong_result_is_reported_with_its_case(capsys):
    def wrong(r):
        assert r.random() < 2
        raise AssertionError("three is not four")

    run_here("own", 5, 3, 5, {"own": wrong})
    lines = capsys.readouterr().out.splitlines()
    assert lines[::2] == ["3", "4"] and all(
        "AssertionError: three is not four (test_fuzz.py:" in line for line in lines[1::2]
    )


FAULTS = {
    "crash": "ctypes.string_at(0)",
    "hang": "time.sleep(60)",
    "hunger": "held = b'x' * 2**29",
}


@pytest.mark.parametrize(
    ("fault", "message"), [("crash", "SIGSEGV"), ("hang", "took more than 2 s"), ("hunger", "took more than 200 MB")]
)
def test_a_fault_of_the_process_is_recorded_and_the_next_cases_run(fault, message, monkeypatch, tmp_path):
    """A child that goes wrong at case 1 of 3."""
    program = tmp_path / "child.py"
    program.write_text(
        "import ctypes, sys, time\n"
        "first = int(sys.argv[sys.argv.index('--first') + 1])\n"
        "for case in range(first, 3):\n"
        "    print(case, flush=True)\n"
        f"    if case == 1:\n        {FAULTS[fault]}\n        time.sleep(5)\n"
        f"open({str(tmp_path / 'done')!r}, 'a').write(str(case))\n"
    )
    monkeypatch.setattr("tests.fuzz.run.sys.executable", sys.executable)
    start = subprocess.Popen
    monkeypatch.setattr(
        "tests.fuzz.run.subprocess.Popen", lambda words, **options: start([words[0], program, *words[3:]], **options)
    )
    begun = time.monotonic()
    (finding,) = run("ops", 0, 0, 3, seconds=2, megabytes=200)
    assert finding[:3] == Finding("ops", 0, 1, "")[:3] and message in finding.what
    assert (tmp_path / "done").read_text() == "2" and time.monotonic() - begun < 60
    assert ctypes  # what the child uses


def test_the_command_refuses_an_unknown_field(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["fuzz", "pictres"])
    with pytest.raises(SystemExit):
        command.main()
    assert "FIELD must be one of ops," in capsys.readouterr().err
