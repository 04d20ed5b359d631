"""A custom metric."""

import numpy as np

from rpcnn.metrics import Metric


class RightNumber(Metric):
    """Percentage of images with as many predicted people as true ones."""

    columns = (("Number", "right_number"),)
    needs_people = ("right_number",)

    def measure(self, image, settings):
        return len(image.person_maps) == len(image.true_person_maps)

    def summarize(self, counts, settings):
        return {"right_number": 100 * np.mean(counts) if counts else None}
