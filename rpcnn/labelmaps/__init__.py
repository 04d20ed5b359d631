"""Label maps and people's maps as arrays and on disk: PNG, run lengths, boxes around maps. Needs numpy alone."""
