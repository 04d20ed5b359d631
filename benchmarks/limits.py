"""How long a launch must take on a GPU, from what its machine code did: counts, not measurements.

A multiprocessor issues four warp instructions a clock. Its units take fewer: the integer and logic unit (ALU) two, that
of float32 and of integer products (FMA) two or four, conversions and special functions (XU) one in two clocks, doubles
(FP64) by the GPU, the load-store unit (LSU) one wavefront. A block stays on one multiprocessor, and a warp issues one
instruction a clock: launches of few blocks, or with a long one, take longer than their share. All of these are lower
bounds, which latency adds to. What passes the level-2 cache is an estimate: each block starts with an empty level-1
cache.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Gpu:
    """Figures of a GPU, of datasheets and architecture papers; `level2` as others have measured it, to 20 %."""

    name: str
    multiprocessors: int
    clock: float
    """Hz."""
    memory: float
    """Bytes a second."""
    level2: float
    """Bytes a second."""
    fma: float
    """Warp instructions a clock of a multiprocessor."""
    fp64: float

    def limits(self, launch: dict) -> dict[str, float]:
        """Seconds that each limit allows the launch at least; launch: one entry of emulator.counts."""
        everywhere = self.clock * self.multiprocessors
        return {
            "issue": launch["instructions"] / (4 * everywhere),
            "ALU": launch["alu"] / (2 * everywhere),
            "FMA": launch["fma"] / (self.fma * everywhere),
            "FP64": launch["fp64"] / (self.fp64 * everywhere),
            "XU": launch["xu"] / (0.5 * everywhere),
            "LSU": (launch["global"] + launch["shared"]) / everywhere,
            "L2": 32 * launch["level2"] / self.level2,
            "one block": max(launch["longest_block"] / 4, launch["longest_warp"]) / self.clock,
        }

    def predict(self, launches: list[dict], moved: float) -> tuple[float, str]:
        """Seconds of launches that follow one another and move `moved` bytes of memory, and what limits them most."""
        each = [self.limits(launch) for launch in launches]
        spent = dict.fromkeys(each[0], 0.0) if each else {}
        for limits in each:
            name = max(limits, key=limits.get)
            spent[name] += limits[name]
        memory = moved / self.memory
        if memory >= sum(spent.values()):
            return memory, "DRAM"
        return sum(spent.values()), max(spent, key=spent.get)


GPUS = (
    Gpu("H100", 132, 1.755e9, 3350e9, 5.5e12, fma=4, fp64=2),  # SXM
    Gpu("A100", 108, 1.410e9, 2039e9, 4.5e12, fma=2, fp64=1),  # SXM, 80 GB
    Gpu("RTX 4090", 128, 2.520e9, 1008e9, 5.0e12, fma=4, fp64=1 / 16),
)
