"""Label maps and person maps as arrays and on disk: PNG, run lengths, boxes around maps. Needs numpy alone."""
