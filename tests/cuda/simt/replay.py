"""Replay recorded calls of the emulated kernels: `python replay.py libsimt.so calls`. Needs no torch.

Without torch it runs under the sanitizers, and every tensor's memory has its exact size.
"""

import ctypes
import pickle
import sys


def argument(value, held):
    """Convert a recorded argument to a C argument; `held` collects the allocated addresses."""
    if value is None:
        return ctypes.c_void_p(None)
    if isinstance(value, tuple):
        memory, offset = value
        buffer = ctypes.CDLL(None).malloc
        buffer.restype = ctypes.c_void_p
        address = buffer(ctypes.c_size_t(len(memory)))
        ctypes.memmove(address, memory, len(memory))
        held.append(address)
        return ctypes.c_void_p(address + offset)
    if isinstance(value, list) and value and isinstance(value[0], tuple):
        return (ctypes.c_void_p * len(value))(*(argument(item, held).value for item in value))
    if isinstance(value, list):
        return (ctypes.c_int64 * len(value))(*value)
    if isinstance(value, bool):
        return ctypes.c_bool(value)
    return ctypes.c_float(value) if isinstance(value, float) else ctypes.c_int64(value)


def main(library, calls):
    kernels, count = ctypes.CDLL(library), 0
    with open(calls, "rb") as file:
        while file.peek(1):
            name, arguments = pickle.load(file)
            held = []
            function = getattr(kernels, name)
            function.restype = ctypes.c_char_p
            error = function(*(argument(value, held) for value in arguments))
            if error:
                sys.exit(f"{name}: {error.decode()}")
            for address in held:
                ctypes.CDLL(None).free(ctypes.c_void_p(address))
            count += 1
    print(f"{count} calls")


main(*sys.argv[1:])
