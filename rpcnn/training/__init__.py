"""The training loop and what keeps it alive: steps in parts, faults, signals, evaluation on the way, resuming."""
