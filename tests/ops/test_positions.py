"""Positions on a map are rounded step by step, whatever the compiler may fuse: CPU and GPU must agree to the bit."""

import ctypes
import pathlib
import platform
import shutil
import subprocess

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).parents[2]
SOURCE = """
#include "geometry/interpolate.h"
#include "geometry/roi.h"
extern "C" void sources(long in, long out, bool align_corners, long count, const long* index, float* to) {
  const float step = rpcnn::interpolation_step<float>(in, out, align_corners);
  for (long i = 0; i < count; ++i) {
    const auto tap = rpcnn::interpolation_tap<float>(index[i], in, step, align_corners);
    to[2 * i] = float(tap.lo), to[2 * i + 1] = tap.w_hi;
  }
}
extern "C" void positions(float from, float to, float scale, long cells, float* at) {
  const auto axis = rpcnn::roi_axis<float>(from, to, scale, cells, 2, true);
  for (long i = 0; i < 2 * cells; ++i) at[i] = axis.position(i / 2, i % 2);
}
"""


@pytest.fixture(scope="module")
def fusing(tmp_path_factory):
    """The headers compiled for a processor that fuses products and sums."""
    flags = {"x86_64": ["-mfma"], "aarch64": []}.get(platform.machine())
    if flags is None or not shutil.which("g++"):
        pytest.skip("needs g++ on x86-64 or aarch64")
    if flags and "fma" not in pathlib.Path("/proc/cpuinfo").read_text().split():
        pytest.skip("the processor has no fused multiply-add")
    folder = tmp_path_factory.mktemp("positions")
    (folder / "positions.cpp").write_text(SOURCE)
    command = ["g++", "-std=c++20", "-O3", "-ffp-contract=fast", *flags, "-shared", "-fPIC", f"-I{ROOT / 'csrc'}"]
    subprocess.run([*command, str(folder / "positions.cpp"), "-o", str(folder / "positions.so")], check=True)
    return ctypes.CDLL(str(folder / "positions.so"))


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize(("size", "target"), [(13, 200), (19, 304), (77, 1000), (50, 33)])
def test_interpolation(fusing, size, target, align_corners):
    f, index = np.float32, np.arange(target, dtype=np.int64)
    got = np.empty((target, 2), f)
    address = lambda array: ctypes.c_void_p(array.ctypes.data)
    longs = ctypes.c_long(size), ctypes.c_long(target), ctypes.c_bool(align_corners), ctypes.c_long(target)
    fusing.sources(*longs, address(index), address(got))
    if align_corners:
        source = index.astype(f) * (f(size - 1) / f(target - 1))
    else:
        source = np.maximum((index.astype(f) + f(0.5)) * (f(size) / f(target)) - f(0.5), f(0))
    low = np.minimum(np.floor(source), f(size - 1))
    np.testing.assert_array_equal(got, np.stack([low, np.clip(source - low, f(0), f(1))], 1))


def test_roi(fusing):
    f, cells = np.float32, 7
    generator = np.random.default_rng(0)
    for low, high in generator.uniform(0, 800, (50, 2)).astype(f):
        got = np.empty(2 * cells, f)
        numbers = (ctypes.c_float(v) for v in (low, high, 1 / 3))
        fusing.positions(*numbers, ctypes.c_long(cells), ctypes.c_void_p(got.ctypes.data))
        start = low * f(1 / 3) - f(0.5)
        size = (high * f(1 / 3) - f(0.5) - start) / f(cells)
        want = [start + f(c) * size + (f(s) + f(0.5)) * size / f(2) for c in range(cells) for s in range(2)]
        np.testing.assert_array_equal(got, np.array(want, f))
