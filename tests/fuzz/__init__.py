"""Random and hostile input for everything that reads it: ``python -m tests.fuzz --cases 10000 --seed 1``."""
