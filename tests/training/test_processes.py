"""Several processes: one that dies ends or restarts the job, and another number of processes continues it."""

import contextlib
import json
import os
import pathlib
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time

import pytest
from helpers.commands import TINY

from rpcnn.runtime.checkpoint import load_snapshot
from rpcnn.train import main as train

pytestmark = pytest.mark.slow
RENDEZVOUS = {
    "standalone": ["--standalone"],
    "static": ["--rdzv-backend=static", "--master-addr=127.0.0.1", "--master-port=29517"],
    "c10d": ["--rdzv-backend=c10d", "--rdzv-endpoint=127.0.0.1:29518", "--rdzv-id=42"],
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return str(tmp_path_factory.mktemp("painted"))


def options(data, *extra):
    alike = ["--model.backbone-norm", "gn"]  # batch statistics are each process's own
    return ["painted", *TINY, *alike, "--run.no-evaluate", "--run.log-every", "1", "--data-root", data, *extra]


@pytest.fixture
def start():
    """A function that starts two processes; what is left of them at the end of the test is killed."""
    jobs = []

    def start(folder, arguments, *launcher):
        command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", *launcher, "-m", "rpcnn.train"]
        job = subprocess.Popen(
            [*command, *arguments],
            cwd=folder,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        jobs.append(job)
        return job

    yield start
    for job in jobs:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(job.pid, signal.SIGKILL)
        job.wait()


def kill_rank(job, rank):
    """Kill a process of the job by its LOCAL_RANK."""
    for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
        try:
            environment = pathlib.Path(f"/proc/{pid}/environ").read_text().split("\0")
            parent = int(re.search(r"PPid:\s+(\d+)", pathlib.Path(f"/proc/{pid}/status").read_text()).group(1))
        except OSError:
            continue
        if parent == job.pid and f"LOCAL_RANK={rank}" in environment:
            os.kill(pid, signal.SIGKILL)
            return
    raise AssertionError(f"no process of rank {rank}")


def wait_for(job, text, lines):
    for line in job.stdout:
        lines.append(line)
        if text in line:
            return
    raise AssertionError("".join(lines))


def records(folder):
    found = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [record for record in found if "loss" in record]


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    """The losses of one process without any fault."""
    folder = train(options(data, "--iterations", "8", "--output", str(tmp_path_factory.mktemp("runs") / "whole")))
    return [record["loss"] for record in records(folder)]


@pytest.mark.parametrize(("rendezvous", "rank"), [("standalone", 1), ("static", 0), ("c10d", 0)])
def test_a_killed_process_restarts_and_the_run_continues(start, rendezvous, rank, data, whole, tmp_path):
    job = start(tmp_path, options(data, "--iterations", "8"), *RENDEZVOUS[rendezvous], "--max-restarts=3")
    lines = []
    wait_for(job, "3/8", lines)
    kill_rank(job, rank)
    out, _ = job.communicate(timeout=200)
    assert job.returncode == 0, "".join(lines) + out
    folder = tmp_path / "runs" / "painted"
    assert [path.name for path in folder.parent.iterdir()] == ["painted"]
    assert [record["iteration"] for record in records(folder)] == list(range(1, 9))
    assert [record["loss"] for record in records(folder)] == pytest.approx(whole, rel=1e-3)


@pytest.mark.parametrize(("rendezvous", "rank"), [("standalone", 0), ("static", 0), ("c10d", 1)])
def test_without_restarts_the_job_ends_within_a_minute(start, rendezvous, rank, data, tmp_path):
    job = start(tmp_path, options(data, "--iterations", "1000"), *RENDEZVOUS[rendezvous])
    wait_for(job, "2/1000", [])
    kill_rank(job, rank)
    began = time.monotonic()
    job.communicate(timeout=100)
    assert job.returncode != 0 and time.monotonic() - began < 60


@pytest.fixture
def hosts():
    """Two hosts, network namespaces with a cable between them: functions that start and kill one of them."""
    if os.geteuid() or not shutil.which("ip") or subprocess.run(["ip", "netns", "add", "rpcnn0"]).returncode:
        pytest.skip("needs root and network namespaces")
    subprocess.run(["ip", "netns", "add", "rpcnn1"], check=True)
    subprocess.run(shlex.split("ip link add cable0 netns rpcnn0 type veth peer name cable0 netns rpcnn1"), check=True)
    for host in (0, 1):
        inside = f"ip -n rpcnn{host}".split()
        subprocess.run([*inside, *f"addr add 10.77.0.{host + 1}/24 dev cable0".split()], check=True)
        for device in ("lo", "cable0"):
            subprocess.run([*inside, *f"link set {device} up".split()], check=True)
    running = []

    def start(host, folder, arguments):
        launcher = shlex.split("--nnodes=2 --nproc-per-node=1 --max-restarts=3 --rdzv-backend=c10d --rdzv-id=7")
        launcher += ["--rdzv-endpoint=10.77.0.1:29519", f"--local-addr=10.77.0.{host + 1}"]
        launcher += [f"--rdzv-conf=is_host={'false' if host else 'true'}"]
        command = ["ip", "netns", "exec", f"rpcnn{host}", sys.executable, "-m", "torch.distributed.run", *launcher]
        job = subprocess.Popen(
            [*command, "-m", "rpcnn.train", *arguments],
            cwd=folder,
            env={**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "cable0"},
            stdout=open(folder / f"host{host}.log", "a"),  # noqa: SIM115  (of the process)
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        running.append(job)
        return job

    yield start
    for job in running:
        kill_host(job)
    for host in (0, 1):
        subprocess.run(["ip", "netns", "del", f"rpcnn{host}"])


def kill_host(job):
    """Kill torchrun and, with it, its processes, as a power cut does."""
    children = subprocess.run(["pgrep", "-P", str(job.pid)], capture_output=True, text=True).stdout.split()
    for pid in [job.pid, *map(int, children)]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    job.wait()


def test_after_a_host_has_died_both_start_again_and_continue(hosts, data, whole, tmp_path):
    arguments = options(data, "--iterations", "8", "--output", str(tmp_path / "run"))
    first, second = (hosts(host, tmp_path, arguments) for host in (0, 1))
    end = time.monotonic() + 120
    while "3/8" not in (log := (tmp_path / "host0.log").read_text() + (tmp_path / "host1.log").read_text()):
        assert time.monotonic() < end, log
        time.sleep(0.2)
    kill_host(second)
    # By itself, torchrun on the other host waits up to ten minutes for it; a scheduler ends it.
    first.terminate()
    assert first.wait(timeout=60) != 0
    again = [hosts(host, tmp_path, [*arguments, "--resume", "auto"]) for host in (0, 1)]
    log = lambda: (tmp_path / "host0.log").read_text() + (tmp_path / "host1.log").read_text()
    assert [job.wait(timeout=200) for job in again] == [0, 0], log()
    assert [record["iteration"] for record in records(tmp_path / "run")] == list(range(1, 9))
    assert [record["loss"] for record in records(tmp_path / "run")] == pytest.approx(whole, rel=1e-3)


def test_a_signal_to_torchrun_writes_a_snapshot(start, data, tmp_path):
    job = start(tmp_path, options(data, "--iterations", "1000", "--run.save-every", "500"), "--standalone")
    wait_for(job, "3/1000", [])
    job.terminate()
    out, _ = job.communicate(timeout=100)
    assert "SIGTERM: snapshot of iteration" in out and "3/1000" not in out
    assert load_snapshot(tmp_path / "runs" / "painted")["iteration"] >= 3


def test_another_number_of_processes_continues_the_run(start, data, whole, tmp_path):
    folder = tmp_path / "run"
    train(options(data, "--iterations", "4", "--output", str(folder)))
    arguments = options(data, "--iterations", "8", "--output", str(folder), "--resume", "auto")
    job = start(tmp_path, arguments, "--standalone")
    out, _ = job.communicate(timeout=200)
    assert job.returncode == 0, out
    # No losses are compared: the first four steps belonged to a shorter cosine.
    assert [record["iteration"] for record in records(folder)] == list(range(1, 9))
    assert load_snapshot(folder)["iteration"] == 8
