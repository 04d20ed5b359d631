"""Metrics as plain text."""

from rpcnn.labels import LabelSet

COLUMNS = {
    "mIoU": "miou",
    "Pixel acc.": "pixel_accuracy",
    "Mean acc.": "mean_accuracy",
    "AP^p_50": "ap_p_50",
    "AP^p_vol": "ap_p_vol",
    "PCP_50": "pcp_50",
    "AP^r_50": "ap_r_50",
    "AP^r_vol": "ap_r_vol",
    "AP^h_vol": "ap_h_vol",
    "AP^bbox": "ap_bbox",
}


def format_table(results: dict, labels: LabelSet) -> str:
    """What :meth:`ParsingEvaluator.summarize` returns, as a table: the paper's columns, their details, IoU per class.

    In percent; – where a value is undefined.
    """
    number = lambda value, digits=2: "–" if value is None else f"{value:.{digits}f}"
    steps = range(10, 100, 10)
    name_width = max(len(name) for name in labels.names) + 2
    cells = [f"{name:<{name_width}}{number(iou, 1):>5}" for name, iou in zip(labels.names, results["iou"], strict=True)]
    per_line = max(110 // (name_width + 8), 1)
    rows = -(-len(cells) // per_line)  # read down the columns
    return "\n".join(
        [
            f"{labels.name}: {results['images']} images, {results['people']} people, in percent",
            "".join(f"{title:>12}" for title in COLUMNS),
            "".join(f"{number(results[key]):>12}" for key in COLUMNS.values()),
            "",
            "threshold " + "".join(f"{step / 100:>8.1f}" for step in steps),
            "AP^p      " + "".join(f"{number(results[f'ap_p_{step}'], 1):>8}" for step in steps),
            "PCP       " + "".join(f"{number(results[f'pcp_{step}'], 1):>8}" for step in steps),
            "",
            "IoU per class",
            *("   ".join(cells[row::rows]) for row in range(rows)),
        ]
    )
