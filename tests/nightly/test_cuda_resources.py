"""Registers, spills, memory and occupancy of the compiled kernels, read from the library without a GPU.

`cuda_resources.tsv` holds the limits; `python tests/nightly/test_cuda_resources.py` rewrites it.
Registers and shared memory depend on nvcc: the table names its version, and its limits are skipped for any other.
"""

import pathlib
import re
import shutil
import subprocess
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))  # run as a script

from helpers import machine_code
from helpers.machine_code import ARCHITECTURE, nvcc_version

pytestmark = pytest.mark.nightly
TABLE = pathlib.Path(__file__).parent / "cuda_resources.tsv"
COLUMNS = ("registers", "shared", "occupancy")
# Threads a block; every other kernel has kBlock = 256.
THREADS = {"nms_mask_kernel": 64, "nms_sweep_kernel": 1024, "nms_collect_kernel": 1024}
# An sm_90 multiprocessor.
REGISTERS, WARPS, BLOCKS, SHARED = 65536, 64, 32, 228 * 1024


def cuobjdump(*arguments: str) -> str:
    """Output of cuobjdump with the kernels' names as C++ writes them."""
    dumped = machine_code.cuobjdump(*arguments)
    if not shutil.which("c++filt"):
        pytest.skip("needs c++filt")
    return subprocess.run(["c++filt"], input=dumped, capture_output=True, text=True, check=True).stdout


def short(name: str) -> str:
    """Shorten a demangled kernel name: no return type, namespace or arguments."""
    name = re.sub(r"^void |rpcnn::|\((bool|int)\)|\(anonymous namespace\)::", "", name).replace("> >", ">>")
    return name.split(">(")[0] + ">" if ">(" in name else name.split("(")[0]


def occupancy(kernel: str, registers: int, shared: int) -> int:
    """Percent of a multiprocessor's warps that can be resident."""
    warps = THREADS.get(kernel.split("<")[0], 256) // 32
    per_warp = -(-registers * 32 // 256) * 256
    blocks = min(BLOCKS, WARPS // warps, REGISTERS // per_warp // warps, SHARED // (shared + 1024))
    return round(100 * blocks * warps / WARPS)


def measured() -> dict[str, dict[str, dict[str, int]]]:
    """Per architecture and kernel: registers, stack, local, shared, occupancy (of an sm_90)."""
    found = {}
    for part in cuobjdump("--dump-resource-usage").split("Fatbin elf code:")[1:]:
        kernels = found.setdefault(re.search(r"arch = (\w+)\n", part).group(1), {})
        for name, usage in re.findall(r"Function (.+?):\n\s+(REG:.+)", part):
            numbers = {key: int(value) for key, value in re.findall(r"(REG|STACK|SHARED|LOCAL):(\d+)", usage)}
            kernel = short(name)
            kernels[kernel] = {
                "registers": numbers["REG"],
                "stack": numbers["STACK"],
                "local": numbers["LOCAL"],
                "shared": numbers["SHARED"],
                "occupancy": occupancy(kernel, numbers["REG"], numbers["SHARED"]),
            }
    return found


@pytest.fixture(scope="module")
def architectures():
    return measured()


@pytest.fixture(scope="module")
def kernels(architectures):
    if ARCHITECTURE not in architectures:
        pytest.skip(f"rpcnn._C_cuda was not compiled for {ARCHITECTURE}")
    return architectures[ARCHITECTURE]


def read_table() -> tuple[str, dict[str, dict[str, int]]]:
    """The nvcc version that the table was made with, and its rows by kernel."""
    version, _, *lines = TABLE.read_text().splitlines()
    rows = [line.split("\t") for line in lines]
    return version.removeprefix("# nvcc "), {
        kernel: dict(zip(COLUMNS, map(int, numbers), strict=True)) for kernel, *numbers in rows
    }


def limits_for(version: str) -> dict[str, dict[str, int]]:
    """The table's rows by kernel; skip if another nvcc compiled the kernels."""
    made_with, rows = read_table()
    if version != made_with:
        pytest.skip(f"cuda_resources.tsv was made with nvcc {made_with}, the kernels with nvcc {version}")
    return rows


def test_the_table_lists_every_kernel(kernels):
    assert kernels.keys() == read_table()[1].keys()


@pytest.mark.parametrize("version", ["12.9.41", "of unknown version"])
def test_limits_of_another_nvcc_are_skipped_with_the_reason(version):
    with pytest.raises(pytest.skip.Exception, match=rf"made with nvcc \d+\.\d+\.\d+, the kernels with nvcc {version}"):
        limits_for(version)


def test_nothing_is_spilled_on_any_architecture(architectures):
    every = [(arch, name, k) for arch, kernels in architectures.items() for name, k in kernels.items()]
    assert [(arch, name) for arch, name, k in every if k["stack"] or k["local"]] == []


def test_no_kernel_takes_more_than_the_table_says(kernels):
    table = limits_for(nvcc_version())
    worse = {
        name: (k, table[name])
        for name, k in kernels.items()
        if k["registers"] > table[name]["registers"]
        or k["shared"] > table[name]["shared"]
        or k["occupancy"] < table[name]["occupancy"]
    }
    assert worse == {}


@pytest.fixture(scope="module")
def sass():
    """Machine code by kernel."""
    parts = re.split(r"\tFunction : ", cuobjdump("--dump-sass", "--gpu-architecture", ARCHITECTURE))
    return {short(part.split("\n")[0]): part for part in parts[1:]}


@pytest.mark.parametrize("element", ["float", "double", "__half", "__nv_bfloat16"])
def test_channels_innermost_move_16_bytes_at_once(sass, element):
    lanes = {"float": 4, "double": 2}.get(element, 8)
    wide = "double" if element == "double" else "float"
    packed = [
        f"roi_align_kernel<{element}, {wide}, {lanes}, true>",
        f"roi_align_backward_kernel<{element}, {wide}, {lanes}, true>",
        f"pyramid_sum_kernel<{element}, {lanes}, true, true, true>",
        f"pyramid_sum_kernel<{element}, {lanes}, true, false, false>",
        f"pyramid_adjoint_x_kernel<{element}, {wide}, {lanes}, true, true, true>",
        f"pyramid_adjoint_y_kernel<{element}, {element}, {lanes}, true>",
        f"level_gradient_kernel<{element}, {lanes}, 8>",
        f"downsample_add_kernel<{element}, {lanes}, true>",
        f"downsample_add_backward_kernel<{element}, {lanes}, true>",
    ]
    reading = [f"level_sums_kernel<{element}, {lanes}, 8, {backward}>" for backward in ("false", "true")]
    reading += [f"parsing_miou_kernel<ArgMax<{element}, {lanes}>>"]
    for kernel in packed + reading:
        assert re.search(r"\bLDG\.E\.128", sass[kernel]), kernel
    for kernel in packed:
        assert re.search(r"\bSTG\.E\.128", sass[kernel]), kernel


if __name__ == "__main__":
    lines = [f"# nvcc {nvcc_version()}", "\t".join(("kernel", *COLUMNS))]
    lines += ["\t".join((name, *(str(k[c]) for c in COLUMNS))) for name, k in sorted(measured()[ARCHITECTURE].items())]
    TABLE.write_text("\n".join(lines) + "\n")
    print(TABLE.read_text())
