"""What a run stands on: files, processes, precision, schedule, log. No model, no data."""
