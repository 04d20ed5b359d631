"""Infrastructure of a run, independent of model and data: files, processes, precision, schedule, log."""
