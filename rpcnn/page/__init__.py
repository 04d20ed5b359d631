"""A folder of plain HTML that shows predictions: no server and no network."""
