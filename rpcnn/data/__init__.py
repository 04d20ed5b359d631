"""Data sets, augmentation and loading: CIHP and MHP-v2 from their official folders, and painted people."""
