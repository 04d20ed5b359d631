#!/bin/sh
# Builds the CPU modules with the address and the undefined-behavior sanitizer beside a copy of the package, and runs
# python -m tests.fuzz with the given arguments on them: tests/fuzz/sanitized.sh ops raw_ops --cases 1000 --seed 1
set -e
cd "$(dirname "$0")/../.."
out=build/sanitized
mkdir -p $out
for folder in rpcnn configs tests; do cp -r $folder $out/; done
rm -f $out/rpcnn/*.so
RPCNN_BUILD=cpu RPCNN_SANITIZE=1 python setup.py -q build_ext --build-temp $out/objects --build-lib $out
cd $out
# libstdc++ too: without it, the address sanitizer does not see exceptions thrown through torch's libraries.
LD_PRELOAD="$(gcc -print-file-name=libasan.so) $(gcc -print-file-name=libstdc++.so)" \
  ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1:abort_on_error=1 \
  UBSAN_OPTIONS=print_stacktrace=1:abort_on_error=1 \
  PYTHONPATH="$PWD:$PYTHONPATH" exec python -m tests.fuzz "$@"
