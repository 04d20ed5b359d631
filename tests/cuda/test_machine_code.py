"""The executor of machine code (tests/cuda/simt/sass.h): results and counts of a few instructions."""

import ctypes
import os

import pytest
import torch
from helpers import emulator
from helpers.machine_ops import LAUNCH

import rpcnn.ops  # noqa: F401

THREAD = ["S2R R0, SR_TID.X", "LDC.64 R2, c[0x0][0x210]"]
MULTIPLY = "IMAD.WIDE.U32 R4, R0, {}, R2"
# name: instructions; R0 is the thread, R2 the address of the data
KERNELS = {
    "words": [*THREAD, MULTIPLY.format("0x4"), "LDG.E R6, desc[UR4][R4.64]"],
    "packs": [*THREAD, MULTIPLY.format("0x10"), "LDG.E.128 R8, desc[UR4][R4.64]"],
    "one_for_all": [*THREAD, "LDG.E.128 R8, desc[UR4][R2.64]"],
    "strided": [*THREAD, MULTIPLY.format("0x20"), "LDG.E R6, desc[UR4][R4.64]"],
    "half_idle": [
        *THREAD,
        MULTIPLY.format("0x4"),
        "ISETP.GE.AND P0, PT, R0, 0x10, PT",
        "@!P0 LDG.E R6, desc[UR4][R4.64]",
        "@!P0 LDG.E R6, desc[UR4][R4.64]",  # in the level-1 cache now
        "@!P0 STG.E desc[UR4][R4.64], R6",
    ],
    "no_conflict": [*THREAD, "IMAD R1, R0, 0x4, RZ", "STS [R1+0x400], R0", "LDS R6, [R1+0x400]"],
    "pairs": [*THREAD, "IMAD R1, R0, 0x8, RZ", "STS.64 [R1+0x400], R2"],
    "conflicts": [*THREAD, "IMAD R1, R0, 0x80, RZ", "STS [R1+0x400], R0"],
    "broadcast": [*THREAD, "LDS R6, [RZ+0x400]"],
    # 2 x + 1, in the lower half of the lanes 3 x + 1: 0x60 is the second arm, 0xa0 where they meet
    "arms": [
        *THREAD,
        MULTIPLY.format("0x4"),
        "LDG.E R6, desc[UR4][R4.64]",
        "ISETP.GE.AND P0, PT, R0, 0x10, PT",
        "BSSY B0, 0xb0",
        "@!P0 BRA 0x90",
        "FADD R7, R6, R6",
        "BRA 0xa0",
        "FMUL R7, R6, 3",
        "BSYNC B0",
        "FADD R7, R7, 1",
        "STG.E desc[UR4][R4.64], R7",
    ],
    "apart": [
        *THREAD,
        "ISETP.GE.AND P0, PT, R0, 0x10, PT",
        "@P0 BRA 0x50",
        "NOP",
        "UMOV UR4, 0xffffffff",
        "BRA.DIV UR4, 0x0",
    ],
    "waits_in_vain": [
        *THREAD,
        "BSSY B0, 0x60",
        "ISETP.GE.AND P0, PT, R0, 0x10, PT",
        "@P0 BRA 0x60",
        "BSYNC B0",
        "BAR.SYNC 0x0",
    ],
    "crooked": [*THREAD, "LDG.E R6, desc[UR4][R2.64+0x2]"],
    "unknown": [*THREAD, "WGMMA R6, R6"],
}


@pytest.fixture(scope="module")
def kernels(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sass")
    with open(folder / "kernels.sass", "w") as file:
        for name, code in KERNELS.items():
            print(f"\t\tFunction : {name}", file=file)
            for n, instruction in enumerate([*code, "EXIT"]):
                print(f"        /*{16 * n:04x}*/    {instruction} ;    /* 0x0 */", file=file)
            print("\t\t..........", file=file)
    emulator.build(str(folder / "libsass.so"), ("-O1", "-DSIMT_SASS"), only="sass")
    library = ctypes.CDLL(str(folder / "libsass.so"))
    library.sass_library.restype = library.sass_run.restype = ctypes.c_char_p
    assert library.sass_library(os.fsencode(folder / "kernels.sass")) is None
    return library


def run(library, kernel, threads=32, blocks=1):
    """The counts of a launch, and the data [512] that it worked on: 0, 1, 2, …"""
    memory = torch.zeros(512 + 32)
    data = memory[(-memory.data_ptr() % 128) // 4 :][:512].copy_(torch.arange(512))
    address = ctypes.c_uint64(data.data_ptr())
    sizes = ctypes.c_int64(blocks), ctypes.c_int64(threads), ctypes.byref(address), ctypes.c_int64(8)
    if error := library.sass_run(kernel.encode(), *sizes):
        raise RuntimeError(error.decode())
    (counts,) = emulator.counts(library)
    return counts, data


# Sectors of 32 bytes; wavefronts of at most one line of 128 bytes, or of one word of each of 32 banks.
@pytest.mark.parametrize(
    ("kernel", "expected"),
    [
        ("words", {"loads": 1, "busy": 32, "sectors": 4, "level2": 4, "global": 1, "shared": 0}),
        ("packs", {"loads": 1, "busy": 32, "sectors": 16, "level2": 16, "global": 4}),
        ("one_for_all", {"loads": 1, "busy": 32, "sectors": 1, "level2": 1, "global": 1}),
        ("strided", {"loads": 1, "busy": 32, "sectors": 32, "level2": 32, "global": 8}),
        ("half_idle", {"loads": 2, "stores": 1, "busy": 48, "sectors": 6, "level2": 4, "global": 3}),
        ("no_conflict", {"loads": 0, "shared": 2}),
        ("pairs", {"shared": 2}),
        ("conflicts", {"shared": 32}),
        ("broadcast", {"shared": 1}),
    ],
)
def test_sectors_wavefronts_and_busy_lanes_are_exact(kernels, kernel, expected):
    counts, _ = run(kernels, kernel)
    assert {key: counts[key] for key in expected} == expected


def test_both_arms_are_issued_and_lanes_meet_again(kernels):
    counts, data = run(kernels, "arms")
    x = torch.arange(512.0)
    assert torch.equal(data[:32], torch.where(x < 16, 3 * x + 1, 2 * x + 1)[:32])
    # 6 instructions, a branch that half of the lanes take, arms of 1 and 2, BSYNC in each, 3 together.
    assert counts["instructions"] == 6 + 1 + 1 + 2 + 2 + 3
    assert counts["lanes"] == 32 * 6 + 16 + 16 + 2 * 16 + 2 * 16 + 32 * 3


def test_every_warp_and_block_is_counted(kernels):
    counts, _ = run(kernels, "words", threads=80, blocks=3)
    assert (counts["blocks"], counts["warps"], counts["instructions"]) == (3, 9, 9 * 5)
    assert (counts["longest_warp"], counts["longest_block"]) == (5, 15)
    assert counts["loads"] == 9 and counts["busy"] == 240 and counts["sectors"] == 3 * (4 + 4 + 2)
    assert counts["memory"] == 9 * 2 and counts["fma"] == 9 and counts["alu"] == 9 and counts["control"] == 9


@pytest.mark.parametrize(
    ("kernel", "message"),
    [
        ("apart", "lanes run apart at BRA.DIV"),
        ("waits_in_vain", "lanes wait for others that never come"),
        ("crooked", "misaligned address: LDG.E"),
        ("unknown", "not implemented: WGMMA R6, R6"),
        ("missing", "no machine code of missing"),
    ],
)
def test_what_cannot_go_on_is_an_error(kernels, kernel, message):
    with pytest.raises(RuntimeError, match=message):
        run(kernels, kernel)
    emulator.counts(kernels)


def test_every_operator_can_be_repeated_on_machine_code():
    operators = {s.name for s in torch._C._jit_get_all_schemas() if s.name.startswith("rpcnn::")}
    in_python = {"rpcnn::paste_parsing_traced"}  # calls paste_parsing
    assert operators - in_python - LAUNCH.keys() == set()
