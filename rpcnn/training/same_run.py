"""Whether a configuration continues a run, and which of its changes the log should name."""

import zlib
from typing import Any

import numpy as np

from rpcnn.config import Config, to_dict

FIXED = ("variant", "model", "train.batch_size", "train.optimizer", "run.seed", "data.dataset", "data.options")
"""What a run keeps: another value would be another run. Both whole groups and single fields."""
FREE = ("model.backbone_weights", "run.output", "run.resume", "train.init_weights", "train.init_classes", "run.device")
"""What has no effect on a run that is continued."""


def changes(before: Config, now: Config) -> list[str]:
    """Lines for the log, one for each field of the configuration that the continued run changes.

    Raises:
        ValueError: a field differs that a run keeps; the message names all such fields.
    """
    old, new = flat(to_dict(before)), flat(to_dict(now))
    differ = [key for key in {**old, **new} if old.get(key) != new.get(key) and not key.startswith(FREE)]
    refused = [key for key in differ if any(key == fixed or key.startswith(f"{fixed}.") for fixed in FIXED)]
    if refused:
        what = ", ".join(f"{key} {_short(old.get(key))} to {_short(new.get(key))}" for key in refused)
        raise ValueError(
            f"run.resume: a run cannot change {what}; give the old value, or begin a new run with another --output "
            "(--init-weights takes over the weights)"
        )
    return [f"{key}: {_short(old.get(key))}, now {_short(new.get(key))}" for key in sorted(differ)]


def flat(values: dict, prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries as one, with dotted keys."""
    result = {}
    for key, value in values.items():
        result |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) and value else {f"{prefix}{key}": value}
    return result


def fingerprint(dataset) -> dict[str, int]:
    """What a data set is recognized by: its number of images, and a checksum of their sizes in order."""
    sizes = np.ascontiguousarray(dataset.sizes, dtype=np.int64)
    return {"images": len(sizes), "sizes": zlib.crc32(sizes)}


def check_data(before: dict[str, int] | None, now: dict[str, int]) -> None:
    """Raise ValueError if the training images are not those of the run to continue (None: not known)."""
    if before is not None and before != now:
        many = f"{before['images']} images, now {now['images']}"
        what = many if before["images"] != now["images"] else "images of other sizes or in another order"
        raise ValueError(
            f"run.resume: the training data has changed: the run had {what}. Restore the data, or begin a new run "
            "with --init-weights, which takes over the weights"
        )


def _short(value: Any) -> str:
    text = "nothing" if value is None else str(value)
    return text if len(text) <= 60 else f"{text[:57]}…"
