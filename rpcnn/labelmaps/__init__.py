"""Label maps and person maps: array types, boxes, PNG files and run lengths. Needs numpy only."""
