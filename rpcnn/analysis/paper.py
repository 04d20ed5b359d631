"""Numbers of the paper in percent (ResNet-50, val splits, 75 epochs); None if not published."""

from rpcnn.config import Config

DATA_SETS = {"cihp": "CIHP", "painted": "CIHP", "mhpv2": "MHP-v2"}
"""The paper's data set that a data.dataset is compared with; painted scenes have CIHP's labels."""
METRICS = {"miou": "mIoU", "ap_p_50": "AP^p_50", "ap_p_vol": "AP^p_vol", "pcp_50": "PCP_50"}
SEMANTIC_METRICS = {"miou": "mIoU", "pixel_accuracy": "Pixel acc.", "mean_accuracy": "Mean acc."}

Row = tuple[float | None, float | None, float | None, float | None]  # in the order of METRICS

# Table 1: Parsing R-CNN on CIHP, one output at a time replaced by the truth.
BOUNDS: dict[str, Row] = {
    "as predicted": (56.2, 64.6, 54.3, 60.9),
    "true boxes": (58.4, 58.0, 51.5, 62.3),
    "true parsing": (87.8, 91.4, 83.6, 90.6),
    "true scores": (57.4, 73.7, 60.8, 60.9),
}

# Table 6: semantic segmentation on CIHP, in the order of SEMANTIC_METRICS.
MODES: dict[str, tuple[float, float, float]] = {
    "baseline": (56.2, 89.3, 67.0),
    "semseg": (50.2, 88.0, 61.3),
    "parsing": (57.4, 89.8, 67.1),
    "combine": (58.2, 90.2, 69.0),
}

# Tables 7 and 8: by (with GSE-FPN, with PRSN).
COMPONENTS: dict[str, dict[tuple[bool, bool], Row]] = {
    "CIHP": {
        (False, False): (56.2, 64.6, 54.3, 60.9),
        (True, False): (58.2, 67.4, 55.5, 62.1),
        (False, True): (56.4, 70.3, 57.6, 61.3),
        (True, True): (58.2, 71.6, 58.3, 62.2),
    },
    "MHP-v2": {
        (False, False): (35.5, 26.6, 40.3, 37.9),
        (True, False): (37.3, 28.9, 41.1, 38.9),
        (False, True): (35.7, 39.6, 44.9, 38.2),
        (True, True): (37.3, 40.5, 45.2, 39.2),
    },
}

# Tables 3, 4 and 5 on CIHP: by weight. In Table 3 neither component is there, in Table 4 GSE-FPN, in Table 5 PRSN
# (whose column is headed λs by mistake).
LAMBDA_PARSING: dict[float, Row] = {
    0.5: (55.9, 64.4, 53.7, 59.9),
    1.0: (55.9, 63.9, 53.8, 60.6),
    2.0: (56.2, 64.6, 54.3, 60.9),
    3.0: (55.9, 64.6, 54.2, 60.7),
}
LAMBDA_SEMANTIC: dict[float, Row] = {
    0.5: (57.0, 65.1, 54.6, 61.1),
    1.0: (57.8, 66.5, None, 61.7),
    2.0: (58.2, 67.4, 55.5, 62.1),
    3.0: (58.0, 67.4, 55.3, 61.8),
}
LAMBDA_RESCORING: dict[float, Row] = {
    0.5: (56.3, 70.1, 57.4, 61.1),
    1.0: (56.4, 70.3, 57.6, 61.3),
    2.0: (56.3, 70.2, 57.5, 61.3),
    3.0: (56.2, 70.3, 57.5, 61.1),
}


def variant_row(config: Config) -> Row | None:
    """The row of Tables 3-5, 7 and 8 with the components and loss weights of a configuration; None if there is none."""
    model, loss = config.model, config.loss
    parts, labels = (model.gse, model.prsn), DATA_SETS.get(config.data.dataset)
    weights = (loss.lambda_parsing, loss.lambda_semantic if model.gse else 2.0,
               loss.lambda_rescoring if model.prsn else 1.0)  # fmt: skip
    if weights == (2.0, 2.0, 1.0):
        return COMPONENTS[labels][parts] if labels in COMPONENTS else None
    if labels != "CIHP":
        return None
    if parts == (False, False):
        return LAMBDA_PARSING.get(weights[0])
    if parts == (True, False) and weights[0] == 2.0:
        return LAMBDA_SEMANTIC.get(weights[1])
    if parts == (False, True) and weights[0] == 2.0:
        return LAMBDA_RESCORING.get(weights[2])
    return None
