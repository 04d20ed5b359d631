"""How the self-check times calls, with clocks and GPUs that are stand-ins."""

import dataclasses

import pytest
import torch

from rpcnn.ops._library import OPS
from rpcnn.selfcheck import cases as cases_module
from rpcnn.selfcheck import clock as clock_module
from rpcnn.selfcheck.cases import Case, cases, sets_needed, time_case
from rpcnn.selfcheck.clock import EventClock, HostClock, megahertz
from rpcnn.selfcheck.measure import CALLS, FEWEST, SAMPLES, calls_a_sample, in_turn, measure


class FakeClock:
    """A clock whose hand moves when `pass_time` is called."""

    megahertz, cache = 1755, 50 << 20

    def __init__(self):
        self.now = 0.0
        self.batches = []

    def pass_time(self, microseconds):
        self.now += microseconds

    def times(self, batch, count):
        self.batches.append(count)
        measured = []
        for _ in range(count):
            start = self.now
            batch()
            measured.append(self.now - start)
        return measured


def test_a_time_is_that_of_one_call():
    clock = FakeClock()
    times = measure([lambda: clock.pass_time(40.0)], clock)
    assert times.samples == pytest.approx([40.0] * SAMPLES)


def test_inputs_take_turns_and_every_sample_has_all_of_them():
    clock, used = FakeClock(), []
    costs = {0: 10.0, 1: 20.0, 2: 60.0}
    calls = [lambda n=n: (used.append(n), clock.pass_time(costs[n])) for n in costs]
    assert measure(calls, clock).samples == pytest.approx([30.0] * SAMPLES)
    assert used == [0, 1, 2] * (len(used) // 3)


def test_long_calls_get_fewer_samples():
    clock = FakeClock()
    assert len(measure([lambda: clock.pass_time(1e6)], clock).samples) == FEWEST


def test_the_batch_is_prepared_once_and_its_preparation_not_timed():
    clock, prepared = FakeClock(), []

    def prepare(batch):
        prepared.append(batch)
        clock.pass_time(1e9)
        return batch

    assert measure([lambda: clock.pass_time(5.0)], clock, prepare).samples == pytest.approx([5.0] * SAMPLES)
    assert len(prepared) == 1


@pytest.mark.parametrize(
    ("once", "sets", "calls"), [(10, 1, 200), (100, 1, 20), (100, 3, 21), (5000, 4, 4), (0, 1, CALLS)]
)
def test_calls_of_a_sample(once, sets, calls):
    assert calls_a_sample(once, sets) == calls


def test_a_batch_goes_through_its_calls_in_turn():
    seen = []
    in_turn([lambda: seen.append("a"), lambda: seen.append("b")], 5)()
    assert seen == ["a", "b", "a", "b", "a"]


def test_sets_of_inputs_fill_the_cache_twice_between_uses():
    assert sets_needed(62 << 20, 50 << 20) == 3
    assert sets_needed(10 << 20, 50 << 20) == 11
    assert sets_needed(500 << 20, 50 << 20) == 2
    assert sets_needed(1000, 50 << 20) is None


def test_cases_hold_every_op_and_gradient():
    listed = cases(OPS, halves=True)
    assert {case.op for case in listed} == set(OPS)
    assert {case.op for case in listed if case.backward} == {
        op for op, make in OPS.items() if make(True).differentiable
    }
    assert Case("gse_fuse", True, torch.bfloat16) in listed and Case("nms", False, torch.bfloat16) not in listed
    assert [str(case) for case in cases(OPS, halves=False, only="gse_fuse forward")] == [
        "gse_fuse forward float32",
        "gse_fuse forward + backward float32",
    ]


@dataclasses.dataclass
class FakeGPU:
    """torch.cuda as far as the clock uses it: work is queued at once, and events stamp when it ends."""

    now: float = 0.0
    waits: int = 0

    def Event(self, enable_timing):
        assert enable_timing
        gpu = self

        class Event:
            def record(self):
                self.at = gpu.now

            def elapsed_time(self, end):
                assert gpu.waits, "the host must wait for the GPU before it reads events"
                return end.at - self.at

        return Event()

    def synchronize(self, device):
        self.waits += 1

    def install(self, monkeypatch, **properties):
        for name in ("Event", "synchronize"):
            monkeypatch.setattr(torch.cuda, name, getattr(self, name))
        monkeypatch.setattr(torch.cuda, "device", lambda device: torch.no_grad())  # any context
        described = type("Properties", (), properties)()
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: described)
        monkeypatch.setattr(torch.cuda, "clock_rate", lambda device: 1755)


def test_events_time_batches_and_the_host_waits_once(monkeypatch):
    gpu = FakeGPU()
    gpu.install(monkeypatch, L2_cache_size=50 << 20)
    clock = EventClock(torch.device("cuda"))

    def batch():
        gpu.now += 0.25  # milliseconds

    assert clock.times(batch, FEWEST) == pytest.approx([250.0] * FEWEST)
    assert (gpu.waits, clock.cache, clock.megahertz) == (1, 50 << 20, 1755)


def test_a_graph_is_captured_after_a_run_on_a_side_stream(monkeypatch):
    seen = []

    class Step:
        """A context that notes when it is entered and left."""

        def __init__(self, name):
            self.name = name

        def __enter__(self):
            seen.append(self.name)

        def __exit__(self, *error):
            seen.append(f"end of {self.name}")

        def wait_stream(self, other):
            seen.append(f"{self.name} waits for {other.name}")

        def replay(self):
            seen.append("replay")

    monkeypatch.setattr(torch.cuda, "device", lambda device: torch.no_grad())
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: Step("side"))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: Step("current"))
    monkeypatch.setattr(torch.cuda, "stream", lambda side: side)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: Step("graph"))
    monkeypatch.setattr(torch.cuda, "graph", lambda graph: Step("capture"))
    replay = clock_module.as_graph(lambda: seen.append("batch"), torch.device("cuda"))
    replay()
    warm_up = ["side waits for current", "side", "batch", "end of side", "current waits for side"]
    assert seen == [*warm_up, "capture", "batch", "end of capture", "replay"]


def test_a_driver_that_tells_no_clock_is_no_error(monkeypatch):
    FakeGPU().install(monkeypatch)

    def refuse(device):
        raise ModuleNotFoundError("pynvml does not seem to be installed")

    monkeypatch.setattr(torch.cuda, "clock_rate", refuse)
    monkeypatch.setenv("PATH", "")
    assert megahertz(torch.device("cuda")) is None


def test_the_host_clock_measures_every_batch():
    assert all(time >= 0 for time in HostClock().times(lambda: None, 3))


@pytest.fixture
def on_a_gpu(monkeypatch):
    """Time a case with a fake clock and inputs on the CPU, as if the device were a GPU."""

    def run(as_graph, op="downsample_add"):
        example, clock = OPS[op](small=True), FakeClock()
        on = lambda device, *rest: type(example).on(example, "cpu", *rest)
        stand_in = dataclasses.replace(example)
        monkeypatch.setattr(stand_in, "on", on, raising=False)
        monkeypatch.setattr(cases_module, "as_graph", as_graph)
        case = Case(op, False, torch.float32)
        return time_case(case, stand_in, torch.device("cuda"), clock, "abc", "command")

    return run


def test_calls_of_fixed_size_are_replayed_as_graphs(on_a_gpu):
    captured = []
    row = on_a_gpu(lambda batch, device: captured.append(batch) or batch)
    assert row.timed_by == "graph" and len(captured) == 1 + (row.cold is not None)
    assert (row.commit, row.command, row.megahertz) == ("abc", "command", 1755)


def test_a_failed_capture_falls_back_to_calls_in_a_row(on_a_gpu, capsys):
    def refuse(batch, device):
        raise RuntimeError("operation not permitted when stream is capturing")

    row = on_a_gpu(refuse)
    assert row.timed_by == "events" and row.warm.samples
    assert "downsample_add forward float32: timed without a CUDA graph" in capsys.readouterr().out


def test_results_of_varying_size_are_not_captured(on_a_gpu):
    row = on_a_gpu(lambda batch, device: pytest.fail("captured"), op="nms")
    assert row.timed_by == "events" and row.cold is None


def test_moved_bytes_are_those_of_inputs_results_and_gradients():
    example = OPS["downsample_add"](small=True)
    inputs, results = (sum(t.nbytes for t in maps) for maps in (
        example.map_tensors(example.arguments), example.function(**example.arguments)))  # fmt: skip
    moved = [
        cases_module.prepared(Case("downsample_add", backward, torch.float32), example, torch.device("cpu"))[2]
        for backward in (False, True)
    ]
    assert moved == [inputs + results, 2 * inputs + 2 * results]


@pytest.mark.parametrize("case", [c for c in cases(OPS, halves=True) if c.backward], ids=str)
def test_every_gradient_can_be_timed(case):
    step, _, _ = cases_module.prepared(case, OPS[case.op](small=True), torch.device("cpu"))
    step()


def test_the_clock_follows_the_device():
    assert isinstance(clock_module.clock_of(torch.device("cpu")), HostClock)
