"""The build's decisions, and the package without compiled kernels."""

import importlib.metadata
import os
import pathlib
import shutil
import subprocess
import sys
import sysconfig
import tarfile

import pytest

from rpcnn.ops._library import OPS

ROOT = pathlib.Path(__file__).parents[2]


def setup(mode, torch_stub=None, arguments=("build_ext", "--dry-run"), **environment):
    path = {"PYTHONPATH": str(torch_stub)} if torch_stub else {}
    return subprocess.run(
        [sys.executable, "setup.py", *arguments],
        cwd=ROOT,
        env={**os.environ, "RPCNN_BUILD": mode, **path, **environment},
        capture_output=True,
        text=True,
    )


@pytest.fixture
def cpu_torch(tmp_path):
    """A fake CPU build of torch with the attributes that setup.py reads before it compiles."""
    (tmp_path / "torch").mkdir()
    text = "class version:\n    cuda = None\n__version__ = '2.11.0+cpu'\n__file__ = __file__\n"
    (tmp_path / "torch" / "__init__.py").write_text(text)
    return tmp_path


def test_an_unknown_mode_is_refused():
    done = setup("fast")
    assert done.returncode != 0
    assert "RPCNN_BUILD must be one of auto, cuda, cpu, none, got 'fast'" in done.stderr


def test_cuda_build_with_cpu_torch_fails_with_the_fix(cpu_torch):
    done = setup("cuda", cpu_torch)
    assert done.returncode != 0
    assert "torch 2.11.0+cpu is a CPU build" in done.stderr and "RPCNN_BUILD=cpu" in done.stderr


def test_auto_build_with_cpu_torch_reports_no_cuda(cpu_torch):
    assert "CUDA kernels: off (torch 2.11.0+cpu is a CPU build)" in setup("auto", cpu_torch).stderr


def test_a_cuda_home_without_nvcc_is_named(tmp_path, cpu_torch):
    text = (cpu_torch / "torch" / "__init__.py").read_text().replace("None", "'13.0'")
    (cpu_torch / "torch" / "__init__.py").write_text(text)
    done = setup("cuda", cpu_torch, CUDA_HOME=str(tmp_path / "nowhere"))
    assert done.returncode != 0 and "nowhere/bin/nvcc does not exist" in done.stderr


@pytest.fixture
def toolkit(tmp_path, cpu_torch):
    """Make a toolkit whose nvcc is a script, a torch of the same version and an nvidia-smi; return setup's stderr."""

    def build(version, known, gpus=(), **environment):
        text = (cpu_torch / "torch" / "__init__.py").read_text().replace("None", f"'{version}'")
        (cpu_torch / "torch" / "__init__.py").write_text(text)
        home, tools = tmp_path / "cuda", tmp_path / "tools"
        scripts = {
            home / "bin" / "nvcc": [
                f"--version) echo 'Cuda compilation tools, release {version}, V{version}.20';;",
                f"--dryrun) echo '#$ TOP={home}' >&2;;",
                f"--list-gpu-arch) for arch in {' '.join(map(str, known))}; do echo compute_$arch; done;;",
            ],
            tools / "nvidia-smi": [f"*) for gpu in {' '.join(gpus)}; do echo $gpu; done;;"],
        }
        for path, cases in scripts.items():
            path.parent.mkdir(parents=True)
            path.write_text("\n".join(["#!/bin/sh", "case $1 in", *cases, "esac"]) + "\n")
            path.chmod(0o755)
        (home / "include").mkdir()
        (home / "include" / "cuda_runtime.h").touch()
        path = f"{tools}{os.pathsep}{os.environ['PATH']}"
        variables = {"TORCH_CUDA_ARCH_LIST": "", "CUDA_HOME": str(home), "PATH": path, **environment}
        return setup("cuda", cpu_torch, **variables).stderr

    return build


NVCC_12_6 = (50, 52, 53, 60, 61, 62, 70, 72, 75, 80, 86, 87, 89, 90)
NVCC_13_0 = (75, 80, 86, 87, 88, 89, 90, 100, 110, 103, 120, 121)


@pytest.mark.parametrize(
    ("version", "known", "gpus", "chosen"),
    [
        ("12.6", NVCC_12_6, (), "7.5+PTX;8.0;9.0+PTX"),
        ("13.0", NVCC_13_0, (), "7.5+PTX;8.0;9.0;10.0;12.0+PTX"),
        ("14.0", (90,), (), "9.0+PTX"),
        ("13.0", NVCC_13_0, ("9.0", "8.6", "9.0"), "8.6;9.0"),
        ("13.0", NVCC_13_0, ("12.0", "7.5"), "7.5;12.0"),
    ],
)
def test_architectures_are_those_that_nvcc_knows(toolkit, version, known, gpus, chosen):
    assert f"architectures: {chosen} (TORCH_CUDA_ARCH_LIST)" in toolkit(version, known, gpus)


def test_a_gpu_newer_than_nvcc_gets_ptx_and_is_named(toolkit):
    said = toolkit("12.6", NVCC_12_6, ("12.0", "9.0"))
    assert "nvcc does not know 12.0 of the visible GPUs" in said and "architectures: 7.5+PTX;8.0;9.0+PTX" in said


@pytest.mark.parametrize("known", [(), (130, 140)])
def test_an_nvcc_without_a_default_architecture_is_an_error(toolkit, known):
    assert "Set TORCH_CUDA_ARCH_LIST, or RPCNN_BUILD=cpu" in toolkit("14.0", known)


def test_jobs_are_those_of_the_processors_that_may_be_used(tmp_path):
    command = ["taskset", "-c", "0", sys.executable, "setup.py", "build_ext", "--dry-run"]
    environment = {**os.environ, "RPCNN_BUILD": "cpu"}
    environment.pop("MAX_JOBS", None)
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert "MAX_JOBS=1\n" in done.stderr, done.stderr


@pytest.mark.parametrize(
    ("compiler", "message"),
    [
        ("g++-4.2", "the kernels need a C++ compiler, and g++-4.2 is not on PATH. Install g++ 11 or newer"),
        ("OLD", "has no C++20 (error: unrecognized command-line option '-std=c++20'). Use g++ 11"),
    ],
)
def test_an_unusable_compiler_is_one_line(compiler, message, tmp_path):
    if compiler == "OLD":
        compiler = str(tmp_path / "old")
        text = "#!/bin/sh\necho \"error: unrecognized command-line option '-std=c++20'\" >&2\nexit 1\n"
        (tmp_path / "old").write_text(text)
        (tmp_path / "old").chmod(0o755)
    done = setup("cpu", CXX=compiler)
    assert done.returncode != 0 and message in done.stderr.strip().splitlines()[-1]
    assert "RPCNN_BUILD=none" in done.stderr and len(done.stderr.strip().splitlines()) <= 3


def test_a_compiler_behind_ccache_becomes_one_program(tmp_path):
    for name in ("ccache", "g++"):
        (tmp_path / name).write_text('#!/bin/sh\n[ "$1" = g++ ] && shift\nexec /usr/bin/c++ "$@"\n')
        (tmp_path / name).chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    done = setup("cpu", CXX="ccache g++", PATH=path)
    assert "MAX_JOBS=" in done.stderr and "C++" not in done.stderr, done.stderr


def test_no_module_of_an_earlier_build_is_left(tmp_path):
    for name in ("setup.py", "pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "rpcnn").mkdir()
    shutil.copy(ROOT / "rpcnn" / "__init__.py", tmp_path / "rpcnn")
    modules = [tmp_path / "rpcnn" / f"{name}.so" for name in ("_C.abi3", "_C_cuda.abi3", "_metrics.cpython-311")]
    for module in modules:
        module.write_bytes(b"")
    environment = {**os.environ, "RPCNN_BUILD": "none"}
    command = [sys.executable, "setup.py", "build_ext"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.stderr.count("which an earlier build left") == 3, done.stderr
    assert not any(module.exists() for module in modules)


def test_chosen_architectures_are_not_questioned(toolkit):
    assert "architectures: 8.7 (TORCH" in toolkit("12.6", (), ("9.0",), TORCH_CUDA_ARCH_LIST="8.7")


def test_without_torch_the_reason_is_named(tmp_path):
    (tmp_path / "torch.py").write_text("raise ImportError('no torch here')")
    done = setup("auto", tmp_path)
    assert done.returncode != 0 and "cannot be imported" in done.stderr


def test_without_the_builds_own_packages_they_are_named(tmp_path):
    (tmp_path / "pybind11.py").write_text("raise ImportError('no pybind11 here')")
    done = setup("cpu", tmp_path)
    assert done.returncode != 0 and done.stderr.splitlines()[-1].endswith("ninja 'pybind11>=3.0'.")


TRY_EVERY_OP = """
from rpcnn.ops._library import OPS
for op, make in OPS.items():
    example = make(small=True)
    example.run(example.function, "cpu")
    print(op)
"""


@pytest.fixture
def bare(tmp_path):
    """The package as RPCNN_BUILD=none installs it."""
    shutil.copytree(ROOT / "rpcnn", tmp_path / "rpcnn", ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    return tmp_path


def run(folder, code):
    return subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True)


def test_without_kernels_ops_warn_once_and_work(bare):
    done = run(bare, TRY_EVERY_OP)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == list(OPS)
    assert done.stderr.count("no compiled kernels") == 1


def test_info_shows_the_error_of_a_module_that_fails_to_load(bare):
    (bare / "rpcnn" / "_C.abi3.so").write_bytes(b"not a library")
    done = run(bare, TRY_EVERY_OP)
    assert done.returncode == 0, done.stderr
    assert "it does not load" in done.stderr and "_C.abi3.so" in done.stderr


MAPS = """
import numpy as np
from rpcnn import info
from rpcnn.labelmaps.boxes import person_boxes
from rpcnn.labelmaps.png import read_byte_png
from rpcnn.labelmaps.run_lengths import paint_runs
from rpcnn.metrics import NumberedPersonMaps, person_counts
labels = np.uint8([[0, 1, 2], [0, 1, 0]])
people = NumberedPersonMaps(labels, np.uint8(labels > 0), 1)
columns = np.zeros((3, 2), np.uint8)
paint_runs(columns, "24", 7)
print(person_boxes(people).tolist(), columns.sum(), person_counts(people, people, 3)[0].ravel(), read_byte_png("none"))
print(info.report())
"""


def test_label_maps_and_metrics_work_without_compiled_code(bare):
    done = run(bare, MAPS)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("[[1.0, 0.0, 3.0, 2.0]] 28 [3 2 1] None")
    assert "rpcnn._labelmaps: No module named 'rpcnn._labelmaps'; label maps are read with" in done.stdout
    assert "rpcnn._metrics: No module named 'rpcnn._metrics'; the evaluator counts with numpy" in done.stdout


def test_ops_work_without_torchvision(bare):
    blocked = (
        "import sys\nfor m in ('torchvision', 'PIL', 'pycocotools', 'tyro', 'numpy.testing'): sys.modules[m] = None\n"
    )
    assert run(bare, blocked + TRY_EVERY_OP).returncode == 0


def test_a_wheel_holds_every_preset_and_package(tmp_path):
    done = setup("none", arguments=("build_py", "--build-lib", str(tmp_path)))
    assert done.returncode == 0, done.stderr
    packed = {
        path.relative_to(tmp_path / "rpcnn").as_posix() for path in (tmp_path / "rpcnn").rglob("*") if path.is_file()
    }
    wanted = {path.relative_to(ROOT).as_posix() for path in (ROOT / "configs").rglob("*.toml")}
    wanted |= {path.relative_to(ROOT / "rpcnn").as_posix() for path in (ROOT / "rpcnn").rglob("*.py")}
    assert "configs/ablations/cihp_gse.toml" in wanted and wanted | {"py.typed", "weights/photo.safetensors"} <= packed
    done = run(tmp_path, "import rpcnn; print(rpcnn.load_config('ablations/cihp_gse').model.prsn, rpcnn.__file__)")
    assert done.stdout.split()[0] == "False" and str(tmp_path) in done.stdout, done.stderr


def test_a_source_distribution_holds_all_that_the_build_reads(tmp_path):
    done = setup("none", arguments=("sdist", "--dist-dir", str(tmp_path)))
    assert done.returncode == 0, done.stderr
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as file:
        packed = {name.partition("/")[2] for name in file.getnames()}
    sources = [path for folder in ("csrc", "_build", "configs", "rpcnn") for path in (ROOT / folder).rglob("*")]
    kinds = {".h", ".cuh", ".cpp", ".cu", ".py", ".toml", ".safetensors"}
    wanted = {path.relative_to(ROOT).as_posix() for path in sources if path.suffix in kinds} - {"rpcnn/_built.py"}
    assert len(wanted) > 250 and wanted <= packed | {"rpcnn/_built.py"}, wanted - packed


def test_the_library_imports_without_torchvision_and_dynamo():
    code = "import rpcnn.predict, rpcnn.train, sys\n"
    code += "print({'torchvision', 'torch._dynamo', 'matplotlib'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "set()\n", done.stdout + done.stderr


def test_info_lists_every_op_and_module():
    done = subprocess.run([sys.executable, "-m", "rpcnn.info"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    told = [line.split()[0] for line in done.stdout.splitlines()]
    assert told[told.index("op") + 1 :] == list(OPS)
    for module in ("_C", "_C_cuda", "_labelmaps", "_metrics", "_rendered"):
        assert f"rpcnn.{module}: " in done.stdout


@pytest.mark.slow
def test_editable_install_works_from_the_clones_parent(tmp_path):
    """In the parent folder Python also finds the clone itself, as an empty namespace package of the same name."""
    clone, venv = tmp_path / "rpcnn", tmp_path / "venv"
    clone.mkdir()
    shutil.copytree(ROOT / "rpcnn", clone / "rpcnn", ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    for name in ("_build", "configs"):
        shutil.copytree(ROOT / name, clone / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, clone)
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"RPCNN_BUILD": "none"}

    def run_above(*command):
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run_above(sys.executable, "-m", "venv", "--without-pip", str(venv))
    (library,) = (venv / "lib").glob("python*/site-packages")
    # This environment's packages: --system-site-packages would be those of the Python that this one was made from.
    (library / "parent.pth").write_text(f"{sysconfig.get_path('purelib')}\n{sysconfig.get_path('platlib')}\n")
    python = str(venv / "bin" / "python")
    # Without isolation nothing is downloaded, which an old setuptools of this environment does not allow.
    recent = int(importlib.metadata.version("setuptools").split(".")[0]) >= 77
    options = ["--quiet", "--no-deps", "--ignore-installed", *(["--no-build-isolation"] if recent else [])]
    run_above(sys.executable, "-m", "pip", "--python", python, "install", *options, "-e", "./rpcnn")
    assert "rpcnn._C: it was not built" in run_above(python, "-m", "rpcnn.info")
    places = "import rpcnn.data.transforms, rpcnn.config as c; print(rpcnn.__file__, c.find_preset('painted'))"
    expected = [str(clone / "rpcnn" / "__init__.py"), str(clone / "configs" / "painted.toml")]
    assert run_above(python, "-c", places).split() == expected
