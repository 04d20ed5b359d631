"""Data sets (names in datasets.py, base class in dataset.py), augmentation, loading, and painted people."""
