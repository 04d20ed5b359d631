"""``python -m rpcnn.info``: print versions, devices and compiled ops. Paste the output into a bug report."""

import importlib.metadata
import platform

import torch
import tyro

from rpcnn.commands import run


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def compiled_ops() -> dict[str, dict[str, bool]]:
    """Whether each op has a compiled kernel: {op: {"CPU": …, "CUDA": …}}."""
    from rpcnn.ops._library import CPU_MISSING, OPS

    if CPU_MISSING:
        return {op: {"CPU": False, "CUDA": False} for op in OPS}
    has = torch._C._dispatch_has_kernel_for_dispatch_key
    return {op: {key: has(f"rpcnn::{op}", key) for key in ("CPU", "CUDA")} for op in OPS}


def report() -> str:
    """The report as text."""
    from rpcnn import __version__
    from rpcnn.ops import _library

    cuda = torch.version.cuda or "none (CPU build)"
    lines = [
        f"rpcnn {__version__}   Python {platform.python_version()}   {platform.platform()}",
        "  ".join(f"{name} {_version(name)}" for name in ("torch", "torchvision", "numpy", "pillow", "pycocotools")),
        f"torch's CUDA: {cuda}; built for {torch._C._cuda_getArchFlags() or 'no GPU' if torch.version.cuda else '-'}",
        f"processor: {processor()}, {torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}",
    ]
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            device = torch.cuda.get_device_properties(index)
            lines.append(
                f"GPU {index}: {device.name}, sm_{device.major}{device.minor}, {device.total_memory / 2**30:.0f} GiB"
            )
    else:
        lines.append("GPU: none visible")
    for module, missing in (("rpcnn._C", _library.CPU_MISSING), ("rpcnn._C_cuda", _library.CUDA_MISSING)):
        lines.append(f"{module}: {missing or 'loaded'}")
    for module, without in (
        ("rpcnn._labelmaps", "label maps are read with Pillow and numpy"),
        ("rpcnn._metrics", "the evaluator counts with numpy"),
        ("rpcnn._rendered", "people cannot be rendered"),
    ):
        try:
            importlib.import_module(module)
            lines.append(f"{module}: loaded")
        except ImportError as error:
            lines.append(f"{module}: {error}; {without}")
    lines.append(f"{'op':<24}{'CPU':<12}CUDA")
    for op, kernels in compiled_ops().items():
        lines.append(f"{op:<24}" + "".join(f"{'compiled' if there else 'reference':<12}" for there in kernels.values()))
    return "\n".join(line.rstrip() for line in lines)


def processor() -> str:
    """The name of this machine's processor."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def main(arguments: list[str] | None = None) -> None:
    """Print the report."""
    tyro.cli(lambda: None, args=arguments, prog="rpcnn info", description=__doc__)
    print(report())


if __name__ == "__main__":
    run(main)
