"""The command ``python -m rpcnn.selfcheck``: checks and times the kernels on the GPU of this machine.

checks.py compares every op with its definition, cases.py lists what is timed, measure.py and clock.py time it, times.py
has the statistics, report.py the tables and files, compare.py says what changed between two reports. Only clock.py and
checks.py need a GPU.
"""
