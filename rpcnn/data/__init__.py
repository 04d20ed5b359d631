"""Data sets (datasets.py has their names, dataset.py says what one is), augmentation and loading; painted people."""
