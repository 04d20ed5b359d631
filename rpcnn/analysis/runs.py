"""Finished runs of an ablation: reading their metrics and grouping them by configuration."""

import dataclasses
import hashlib
import itertools
import json
import pathlib
import re
from collections.abc import Sequence
from dataclasses import dataclass

from rpcnn.config import Config, load_config, to_dict
from rpcnn.runtime.checkpoint import WEIGHTS

from .paper import METRICS
from .scores import SCORES, correlations, score_points
from .trained import open_trained

CACHE = "analysis.json"
CORRELATIONS = {f"{score}_{kind}": (score, kind) for score in SCORES for kind in ("pearson", "spearman")}


@dataclass
class Run:
    """A finished run."""

    folder: pathlib.Path
    config: Config
    values: dict[str, float | None]
    """The metrics of paper.METRICS and ap_bbox in percent, and CORRELATIONS over matched detections (see scores)."""

    @property
    def seed(self) -> int:
        """run.seed."""
        return self.config.run.seed


@dataclass
class RunGroup:
    """Runs that differ only in the seed, in the order of the seeds."""

    name: str
    runs: list[Run]

    @property
    def config(self) -> Config:
        """The configuration of the first run."""
        return self.runs[0].config

    def values(self, key: str) -> list[float]:
        """The values of a metric, of all runs where it is defined."""
        return [value for run in self.runs if (value := run.values[key]) is not None]


def read_run(folder: pathlib.Path, arguments: Sequence[str], prog: str) -> Run:
    """Read a run: the metrics of its results.json and its correlations, see `cached_correlations`.

    Args:
        folder: of rpcnn.train, with config.toml, results.json and model.safetensors.
        arguments: command-line style changes of the configuration for computing correlations (--data-root …).
        prog: name of the command, for messages.

    Raises:
        ValueError: the folder is no finished run, or a metric is missing in its results.
    """
    for name in ("config.toml", "results.json"):
        if not (folder / name).is_file():
            raise ValueError(f"ablation: {folder} holds no {name}: it is no finished run of `python -m rpcnn.train`")
    config = load_config(folder / "config.toml")
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    missing = [key for key in (*METRICS, "ap_bbox") if key not in results]
    if missing:
        raise ValueError(f"ablation: {folder / 'results.json'} must hold {', '.join(missing)}")
    found = cached_correlations(folder, config, arguments=arguments, prog=prog)["matched"]
    values = {key: results[key] for key in (*METRICS, "ap_bbox")}
    return Run(folder, config, values | {key: found[score][kind] for key, (score, kind) in CORRELATIONS.items()})


def cached_correlations(folder: pathlib.Path, config: Config, arguments: Sequence[str], prog: str) -> dict:
    """:func:`rpcnn.analysis.scores.correlations` of a run, cached in analysis.json by weights and settings.

    If the folder is read-only, a message is printed and they are computed each time.
    """
    if not (folder / WEIGHTS).is_file():
        raise ValueError(f"ablation: {folder} holds no {WEIGHTS}, from which its correlations are to be computed")
    settings = to_dict(config)
    settings.pop("run")
    digest = hashlib.sha256((folder / WEIGHTS).read_bytes() + json.dumps(settings, sort_keys=True).encode()).hexdigest()
    cache = folder / CACHE
    if cache.is_file():
        kept = json.loads(cache.read_text(encoding="utf-8"))
        if kept.get("of") == digest:
            return kept["correlations"]
    print(f"rpcnn: {folder}: computing its correlations", flush=True)
    found = correlations(score_points(open_trained(folder, list(arguments), prog)))
    try:
        cache.write_text(json.dumps({"of": digest, "correlations": found}, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        print(f"rpcnn: {cache} cannot be written ({error}); the correlations are not kept")
    return found


def group(runs: Sequence[Run]) -> list[RunGroup]:
    """Group runs into variants, whose configurations differ only in the [run] table, in the order of their first runs.

    A variant is named after its first folder without an ending like -s0, -seed1 or -2.

    Raises:
        ValueError: two runs of a variant have the same seed.
    """
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(json.dumps(settings(run.config), sort_keys=True), []).append(run)
    variants = []
    for members in groups.values():
        members = sorted(members, key=lambda run: run.seed)
        for one, other in itertools.pairwise(members):
            if one.seed == other.seed:
                raise ValueError(f"ablation: {one.folder} and {other.folder} are one variant with one seed, {one.seed}")
        variants.append(RunGroup(re.sub(r"-(s|seed)?\d+$", "", members[0].folder.resolve().name), members))
    names = [variant.name for variant in variants]
    for variant in variants:
        if names.count(variant.name) > 1:
            variant.name = str(variant.runs[0].folder)
    return variants


def differences(variants: Sequence[RunGroup]) -> list[str]:
    """Keys such as model.gse in which the configurations of the variants differ."""
    flat = [
        {f"{name}.{key}": value for name, part in settings(variant.config).items() for key, value in part.items()}
        for variant in variants
    ]
    return [key for key in flat[0] if any(values[key] != flat[0][key] for values in flat[1:])]


def settings(config: Config) -> dict:
    """The fields of a configuration that affect results, without the seed, as nested dictionaries."""
    values = to_dict(config)
    values.pop("run")
    values["data"].pop("workers")
    values["variant"] = dataclasses.asdict(config.variant)
    return values
