# Each recipe is one word: `just test`. Without just, copy the line.
set shell := ["bash", "-c"]

# the recipes
default:
    @just --list

# compile the kernels in place; RPCNN_BUILD=cpu leaves CUDA out
build:
    python setup.py build_ext --inplace

# the quick tests
test:
    pytest

# minutes: the paper's network at full size, several processes
slow:
    pytest -m slow

# how the kernels are written: mutants, registers, sanitizers
nightly:
    pytest -m nightly

# whether the compiled modules keep to torch's stable ABI and Python's limited API
audit:
    torch-abi-audit --check both ./rpcnn/*.abi3.so
    abi3audit --strict --summary --assume-minimum-abi3 3.11 ./rpcnn/*.abi3.so

# each op in turn with torchvision or the PyTorch composition
bench:
    pytest benchmarks/ --benchmark-only

# what CI asks of every line
lint:
    ruff check .
    ruff format --check .
    clang-format --dry-run --Werror csrc/*.{h,cpp} csrc/*/*.{h,cpp,cu,cuh} tests/cuda/simt/*.{cpp,h} tests/helpers/*.c

# write it as CI asks
format:
    ruff check --fix .
    ruff format .
    clang-format -i csrc/*.{h,cpp} csrc/*/*.{h,cpp,cu,cuh} tests/cuda/simt/*.{cpp,h} tests/helpers/*.c

# the types of the public API
types:
    mypy

# dist/: sdist, wheel, bill of materials (CycloneDX), digests; pip install build cyclonedx-bom
release:
    rm -rf dist
    python -m build
    cyclonedx-py environment --pyproject pyproject.toml --mc-type library --output-reproducible -o dist/rpcnn.cdx.json
    cd dist && sha256sum * > SHA256SUMS && cat SHA256SUMS

# the pages, in site/
docs:
    mkdocs build --strict

# paint people, train, evaluate, draw: five minutes on two cores
quickstart:
    python -m rpcnn.train
