"""What `rpcnn predict` does with each source: parse it, save the results, and keep count."""

import hashlib
import json
import pathlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field

from PIL import Image
from tqdm import tqdm

from rpcnn import __version__
from rpcnn.config import to_dict
from rpcnn.label_schemes import Scheme
from rpcnn.runtime import distributed
from rpcnn.runtime.checkpoint import checksum

from . import coco_file, saving
from .predictor import Predictor
from .results import ParsingResult
from .shards import ShardReader
from .sources import Source
from .video import Video, VideoError, frames_folder
from .video_results import parse_video


@dataclass
class Outcome:
    """What became of the images of a process."""

    parsed: int = 0
    failed: dict[pathlib.PurePath, str] = field(default_factory=dict)
    """Place to reason."""
    limited: int = 0
    """Images whose short side is smaller than asked for, because the long side is limited."""


class Job:
    """Parses sources with one predictor and saves the results. `outcome` is what became of them.

    Args:
        predictor: keeps probabilities if they are to be saved.
        output: the folder.
        kinds: what to save; none for what is saved by default.
        scheme: the labels of the results; None for those of the model.
        short_side: whether the user asked for one, and is told where it is not reached.
    """

    def __init__(
        self,
        predictor: Predictor,
        output: pathlib.Path,
        kinds: Sequence[str] = (),
        scheme: Scheme | None = None,
        short_side: bool = False,
    ):
        self.predictor, self.output, self.kinds = predictor, output, kinds
        self.scheme, self.short_side = scheme, short_side
        self.label_set = scheme.label_set if scheme else predictor.label_set
        self.origin = _origin(predictor, scheme)
        self.shards = ShardReader()
        self.outcome = Outcome()

    def is_done(self, picture: Source) -> bool:
        """Whether the results of a picture are there, whole, and as they would be."""
        folder, stem = self.output / picture.place.parent, picture.place.name
        return picture.camera is None and saving.is_saved(folder, stem, self.origin_of(picture))

    def origin_of(self, picture: Source) -> dict:
        """What the results of a picture depend on."""
        return self.origin | {"source": picture.state(), "save": list(picture.kinds(self.kinds))}

    def parse(self, pictures: Sequence[Source]) -> None:
        """Parse images that go into one window, and save the results."""
        readable = {}
        for picture in pictures:
            try:
                readable[picture] = picture.load(self.predictor.max_pixels, self.shards)
            except ValueError as error:
                self.outcome.failed[picture.place] = printable(error)
        threshold = self.predictor.config.inference.min_parsing_score
        for (picture, pixels), result in zip(readable.items(), self.predictor(list(readable.values())), strict=True):
            result = self.remap(result)
            folder, name = self.output / picture.place.parent, printable(picture.path)
            saving.save(
                result,
                folder,
                picture.place.name,
                Image.fromarray(pixels),
                picture.kinds(self.kinds),
                origin=self.origin_of(picture),
                file_name=(picture.place.parent / picture.path.name).as_posix(),
            )
            self.outcome.parsed += 1
            self.outcome.limited += self.is_limited(pixels.shape[:2])
            shown = int((result.scores >= threshold).sum())
            tqdm.write(f"{name}: {shown} people with a score of at least {threshold:g}, {len(result)} found")

    def parse_video(self, source: Source) -> None:
        """Parse a video or camera, and save the results."""
        folder, stem, name = self.output / source.place.parent, source.place.name, printable(source.path)
        kinds, origin = source.kinds(self.kinds), self.origin_of(source)
        try:
            with Video(source.path if source.camera is None else source.camera, self.predictor.max_pixels) as video:
                quiet = not sys.stderr.isatty() or not distributed.is_main()
                with tqdm(total=video.count or None, desc=source.place.name, unit="frame", disable=quiet) as bar:
                    record = parse_video(
                        self.predictor, video, folder, stem, kinds, origin, self.remap, lambda frame: bar.update()
                    )
        except VideoError as error:
            self.outcome.failed[source.place] = printable(error)
            return
        self.outcome.parsed += 1
        self.outcome.limited += self.is_limited((record["height"], record["width"]))
        sound = f"; {record['sound']}" if "sound" in record else ""
        print(f"{name}: {len(record['people'])} people in {record['frames']} frames{sound}")

    def remap(self, result: ParsingResult) -> ParsingResult:
        """The result in the labels that are asked for."""
        return result.remap(self.scheme) if self.scheme else result

    def is_limited(self, size: Sequence[int]) -> bool:
        """Whether --test-short-side was given and is not reached by an image of this size."""
        settings = self.predictor.config.inference
        return self.short_side and settings.test_short_side * max(size) > settings.test_long_side_max * min(size)

    def coco_files(self, picture: Source) -> list[pathlib.Path]:
        """The COCO files of a picture, or of the frames of a video in their order."""
        if not picture.is_video:
            return picture.results(self.output, ["coco"])[:1]
        return sorted(frames_folder(self.output / picture.place.parent, picture.place.name).glob("*_coco.json"))

    def limit(self) -> str:
        """Why an image may be smaller than --test-short-side asks."""
        settings = self.predictor.config.inference
        short, long = settings.test_short_side, settings.test_long_side_max
        return f"--test-short-side {short} is not reached: the long side is at most {long} (--test-long-side-max)"

    def write_coco(self, sources: Sequence[Source]) -> None:
        """Write the COCO file of all pictures and frames."""
        paths = [path for source in sources for path in self.coco_files(source)]
        records = (json.loads(path.read_bytes()) for path in paths)
        path = self.output / coco_file.NAME
        with saving.replacing(path) as partial, open(partial, "w", encoding="utf-8") as file:
            file.writelines(coco_file.merge(records, self.label_set))


def _origin(predictor: Predictor, scheme: Scheme | None) -> dict:
    """What all results of a command depend on: the weights, and everything that is set."""
    labels = None if scheme is None else [scheme.label_set.to_dict(), scheme.table(predictor.label_set).tolist()]
    settings = json.dumps([__version__, to_dict(predictor.config), str(predictor.pipeline.dtype), labels])
    state = {name: value.cpu() for name, value in predictor.pipeline.model.state_dict().items()}
    return {"weights": checksum(state), "settings": hashlib.sha256(settings.encode()).hexdigest()[:16]}


def printable(value: object) -> str:
    """The text of a value; bytes of a file name that are no UTF-8 as \\udcXX, since printing them raises."""
    return str(value).encode("utf-8", "backslashreplace").decode()
