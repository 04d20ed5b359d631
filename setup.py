"""Builds the kernels of rpcnn: ``rpcnn._C`` (every operator, CPU kernels), ``rpcnn._C_cuda`` (CUDA kernels),
``rpcnn._labelmaps`` (label maps from files), ``rpcnn._metrics`` (the evaluator's counting core) and ``rpcnn._rendered``
(the rasterizer of rendered people).

RPCNN_BUILD selects what is compiled (default auto); compiling needs no GPU:
  auto  the CPU kernels, and the CUDA kernels if torch is a CUDA build and nvcc has the same major version
  cuda  the CPU and CUDA kernels, or an error with the reason why the CUDA kernels cannot be built
  cpu   the CPU kernels only
  none  nothing; the ops run on their plain-PyTorch references
RPCNN_SANITIZE=1 builds the CPU modules with the address and the undefined-behavior sanitizer (tests/fuzz/sanitized.sh).
TORCH_CUDA_ARCH_LIST sets the GPU architectures (default: those of the visible GPUs, else those of ARCHITECTURES that
nvcc knows), MAX_JOBS the number of parallel compiler jobs.
"""

import atexit
import glob
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile

from setuptools import setup
from setuptools.command.build_py import build_py

MODES = ("auto", "cuda", "cpu", "none")
# Turing (T4), Ampere and Ada (8.x), Hopper, Blackwell (10.x, 12.x): code for 8.0 runs on every 8.x, and so on.
ARCHITECTURES = ("7.5", "8.0", "9.0", "10.0", "12.0")
OPTIMIZE = ["-O3", "-std=c++20", "-fno-math-errno", "-fno-trapping-math"]
# torch disables the conversions of float16 and bfloat16 by default, but the kernels use them.
NVCC = [
    *("-O3", "-std=c++20", "-lineinfo", "--expt-relaxed-constexpr", "-DUSE_CUDA"),
    *("-U__CUDA_NO_HALF_CONVERSIONS__", "-U__CUDA_NO_HALF_OPERATORS__", "-U__CUDA_NO_BFLOAT16_CONVERSIONS__"),
]
SANITIZE = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-fno-omit-frame-pointer"]
STABLE_ABI = ["-DTORCH_TARGET_VERSION=0x020b000000000000"]  # torch 2.11; py_limited_api adds Python's


def say(text):
    print(f"rpcnn: {text}", file=sys.stderr, flush=True)


def find_toolkit():
    """Find the CUDA toolkit. Returns (root, version), or (None, the reason why it cannot be used)."""
    homes = [os.environ[key] for key in ("CUDA_HOME", "CUDA_PATH") if os.environ.get(key)]
    nvcc = os.path.join(homes[0], "bin", "nvcc") if homes else shutil.which("nvcc") or "/usr/local/cuda/bin/nvcc"
    if not os.path.exists(nvcc):
        return None, f"no nvcc ({nvcc} does not exist)" if homes else "no nvcc on PATH or in /usr/local/cuda"
    try:  # nvcc may be a wrapper script or a link, so ask it for its folder
        dry = [nvcc, "--dryrun", "-x", "cu", "-c", os.devnull, "-o", os.devnull]
        top = re.search(r"^#\$ TOP=(.*)$", subprocess.run(dry, capture_output=True, text=True).stderr, re.M)
        root = top.group(1).strip() if top else os.path.dirname(os.path.dirname(os.path.realpath(nvcc)))
        version = subprocess.run([nvcc, "--version"], capture_output=True, text=True).stdout
        version = re.search(r"release (\d+\.\d+)", version).group(1)
    except (OSError, AttributeError) as error:
        return None, f"{nvcc} does not run: {error}"
    root = os.path.realpath(root)
    header = os.path.join(root, "include", "cuda_runtime.h")
    return (root, version) if os.path.exists(header) else (None, f"{header} is missing")


def cuda_toolkit(mode, torch):
    """Return the root of the toolkit for the CUDA kernels, or None. Exits if mode is 'cuda' and there is none."""
    if mode == "cpu":
        say("CUDA kernels: off (RPCNN_BUILD=cpu)")
        return None
    if torch.version.cuda is None:
        root, why = None, f"torch {torch.__version__} is a CPU build"
    else:
        root, why = find_toolkit()
        if root and why.split(".")[0] != torch.version.cuda.split(".")[0]:
            root, why = None, f"nvcc is CUDA {why}, torch {torch.__version__} needs {torch.version.cuda}"
    if root:
        say(f"CUDA kernels: on, toolkit {why} in {root}")
    elif mode == "cuda":
        sys.exit(f"rpcnn: RPCNN_BUILD=cuda, but {why}. Use RPCNN_BUILD=cpu (or auto) to build without CUDA kernels.")
    else:
        say(f"CUDA kernels: off ({why}); CUDA tensors will run on the plain-PyTorch references")
    return root


def visible_architectures():
    """Return the compute capabilities of the visible GPUs, such as {'8.0'}."""
    if not shutil.which("nvidia-smi"):
        return set()
    query = ["nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader"]
    caps = subprocess.run(query, capture_output=True, text=True).stdout.split()
    return {cap for cap in caps if re.fullmatch(r"\d+\.\d", cap)}


def known_architectures(root):
    """Return the architectures that the toolkit's nvcc compiles for. Exits if it does not tell."""
    command = [os.path.join(root, "bin", "nvcc"), "--list-gpu-arch"]
    listed = subprocess.run(command, capture_output=True, text=True).stdout
    if known := {f"{major}.{minor}" for major, minor in re.findall(r"^compute_(\d+)(\d)$", listed, re.M)}:
        return known
    sys.exit(f"rpcnn: `{' '.join(command)}` lists no architecture. Set TORCH_CUDA_ARCH_LIST, or RPCNN_BUILD=cpu.")


def architectures(root):
    """Return the architecture list for TORCH_CUDA_ARCH_LIST.

    Without a GPU, or with one that nvcc does not know, all default architectures that it knows, with PTX of the first
    and of the last: the driver compiles it for architectures between them and for later ones.
    """
    known, visible = known_architectures(root), visible_architectures()
    if visible and visible <= known:
        return ";".join(sorted(visible, key=float))
    if unknown := visible - known:
        say(f"nvcc does not know {', '.join(sorted(unknown, key=float))} of the visible GPUs; newer ones compile PTX")
    chosen = [architecture for architecture in ARCHITECTURES if architecture in known]
    if not chosen:
        sys.exit(f"rpcnn: nvcc knows none of {', '.join(ARCHITECTURES)}. Set TORCH_CUDA_ARCH_LIST, or RPCNN_BUILD=cpu.")
    return ";".join(a + ("+PTX" if a in (chosen[0], chosen[-1]) else "") for a in chosen)


def jobs():
    """Return the number of compiler jobs: the processors that this process may use, and 2 GB of memory for each."""
    affinity = getattr(os, "sched_getaffinity", None)
    processors = len(affinity(0)) if affinity else os.cpu_count() or 1
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            free = int(re.search(r"MemAvailable:\s+(\d+)", file.read()).group(1)) // (2 << 20)  # KiB
        for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
            if os.path.exists(path):
                with open(path, encoding="ascii") as file:
                    text = file.read().strip()
                free = min(free, int(text) >> 31) if text.isdigit() else free
    except (OSError, AttributeError, ValueError):
        free = processors
    return max(min(processors, free), 1)


def find_compiler():
    """Exit with what is missing if there is no C++ compiler, or one without C++20."""
    words = shlex.split(os.environ.get("CXX", "") or sysconfig.get_config_var("CXX") or "c++")
    compiler = next((word for word in words if os.path.basename(word) not in ("ccache", "sccache")), "c++")
    if not shutil.which(compiler):
        sys.exit(f"rpcnn: the kernels need a C++ compiler, and {compiler} is not on PATH. Install g++ 11 or newer "
                 "(Debian, Ubuntu: apt install g++), set CXX, or build no kernels: RPCNN_BUILD=none.")  # fmt: skip
    probe = [*words, "-std=c++20", "-x", "c++", "-fsyntax-only", "-"]
    code = "#include <bit>\n#include <concepts>\nint main() { return std::has_single_bit(4u); }\n"
    done = subprocess.run(probe, input=code, capture_output=True, text=True)
    if done.returncode:
        reason = next((line for line in done.stderr.splitlines() if "error" in line), done.stderr.strip()[:200])
        sys.exit(f"rpcnn: {' '.join(words)} has no C++20 ({reason}). Use g++ 11, clang 16 or newer (set CXX), or "
                 "install without kernels: RPCNN_BUILD=none.")  # fmt: skip
    # torch takes CXX for the name of one program; ccache and sccache take the compiler from a link with its name.
    if len(words) > 1:
        folder = tempfile.mkdtemp(prefix="rpcnn-compiler-")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        script = os.path.join(folder, os.path.basename(compiler))
        with open(script, "w", encoding="utf-8") as file:
            file.write(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n')
        os.chmod(script, 0o755)
        os.environ["CXX"] = script


def remove_stale(mode):
    """Remove modules beside the sources that an earlier build left and this one does not make."""
    for path in glob.glob({"none": "rpcnn/_*.so", "cpu": "rpcnn/_C_cuda*.so"}.get(mode, "")):
        say(f"removing {path}, which an earlier build left (RPCNN_BUILD={mode})")
        os.remove(path)


def extensions(mode):
    find_compiler()
    try:
        import torch
    except ImportError:
        sys.exit("rpcnn: the kernels need torch to compile, and it cannot be imported. `pip install -e .` without "
                 "--no-build-isolation installs it; RPCNN_BUILD=none installs without kernels.")  # fmt: skip
    root = cuda_toolkit(mode, torch)
    if root:
        os.environ["CUDA_HOME"] = root  # torch.utils.cpp_extension reads it when it is imported
        if not os.environ.get("TORCH_CUDA_ARCH_LIST"):
            os.environ["TORCH_CUDA_ARCH_LIST"] = architectures(root)
        say(f"architectures: {os.environ['TORCH_CUDA_ARCH_LIST']} (TORCH_CUDA_ARCH_LIST)")
    os.environ.setdefault("MAX_JOBS", str(jobs()))
    say(f"torch {torch.__version__} in {os.path.dirname(torch.__file__)}; MAX_JOBS={os.environ['MAX_JOBS']}")

    try:
        import pybind11
    except ImportError:
        sys.exit("rpcnn: with --no-build-isolation the build's own packages must be there: pip install "
                 "'setuptools>=77' ninja 'pybind11>=3.0'.")  # fmt: skip
    from setuptools import Extension
    from torch.utils.cpp_extension import BuildExtension, CppExtension, CUDAExtension

    sanitize = SANITIZE if os.environ.get("RPCNN_SANITIZE") == "1" else []
    optimize = [*OPTIMIZE, *(["-O1", "-g", *sanitize] if sanitize else [])]
    cpp = optimize + STABLE_ABI
    # Python's own flags ask for debug symbols, four fifths of the modules' size.
    link = sanitize or (["-s"] if sys.platform == "linux" else [])
    limited = not sysconfig.get_config_var("Py_GIL_DISABLED")  # a free-threaded Python has no limited API yet
    modules = [
        CppExtension(
            "rpcnn._C",
            ["csrc/register.cpp", *sorted(glob.glob("csrc/cpu/*.cpp"))],
            extra_compile_args={"cxx": cpp},
            extra_link_args=link,
            py_limited_api=limited,
        ),
    ]
    modules += [
        Extension(
            f"rpcnn._{name}",
            [f"csrc/{name}/module.cpp"],
            language="c++",
            include_dirs=[pybind11.get_include()],
            extra_compile_args={"cxx": [*optimize, "-fvisibility=hidden"]},
            extra_link_args=link,
        )
        for name in ("labelmaps", "metrics", "rendered")
    ]
    if root:
        modules.append(
            CUDAExtension(
                "rpcnn._C_cuda",
                ["csrc/cuda/module.cpp", *sorted(glob.glob("csrc/cuda/*.cu"))],
                extra_compile_args={
                    "cxx": [*cpp, "-DUSE_CUDA"],
                    "nvcc": [*NVCC, *STABLE_ABI],
                },
                extra_link_args=link,
                py_limited_api=limited,
            )
        )

    class Build(BuildExtension):
        def run(self):
            try:
                super().run()
            except Exception as error:
                less = "RPCNN_BUILD=cpu leaves the CUDA kernels out, " if root else ""
                sys.exit(f"rpcnn: the kernels did not compile ({error}); the compiler's messages are above. {less}"
                         "RPCNN_BUILD=none installs without kernels.")  # fmt: skip

    return {"ext_modules": modules, "cmdclass": {"build_ext": Build, "build_py": BuildPython}}


class BuildPython(build_py):
    """Copies the presets into the package. An editable install reads them from configs/."""

    def run(self):
        super().run()
        if not self.editable_mode:
            target = os.path.join(self.build_lib, "rpcnn", "configs")
            shutil.copytree("configs", target, dirs_exist_ok=True)


def main():
    mode = os.environ.get("RPCNN_BUILD", "auto")
    if mode not in MODES:
        sys.exit(f"rpcnn: RPCNN_BUILD must be one of {', '.join(MODES)}, got {mode!r}")
    compiles = {"build_ext", "bdist_wheel", "editable_wheel", "develop", "install"} & set(sys.argv)
    if {"editable_wheel", "develop", "build_ext"} & set(sys.argv) and "--dry-run" not in sys.argv:
        remove_stale(mode)
    if mode == "none":
        say("RPCNN_BUILD=none: no kernels; the ops run on their plain-PyTorch references")
    setup(**(extensions(mode) if compiles and mode != "none" else {"cmdclass": {"build_py": BuildPython}}))


main()
