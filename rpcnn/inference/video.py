"""Video files and cameras as frames, and videos of frames. Needs PyAV, of the extra `video`."""

import contextlib
import os
import pathlib
from collections.abc import Iterator
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

SUFFIXES = (
    *(".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".wmv", ".flv", ".3gp", ".ogv", ".mts"),
    ".m2ts",
)
"""Of the files that are taken for videos."""


def frames_folder(folder: pathlib.Path, stem: str) -> pathlib.Path:
    """The folder of the files of single frames of a video <stem>."""
    return folder / f"{stem}_frames"


class Frame(NamedTuple):
    """A frame of a video."""

    pixels: np.ndarray
    """uint8 RGB [H, W, 3], upright."""
    ticks: int
    """When it is shown, in units of the video's `time_base`; each larger than that of the frame before."""


BREAK = 1.0
"""Seconds that may be missing at the end of a video that is whole."""


class VideoError(ValueError):
    """Raised for a video that cannot be used, or not to its end. The message has the path and the reason."""


class Video:
    """The frames of a video file or camera, one after the other; nothing is kept.

    Use it as a context and iterate over it once.

    Args:
        source: a file, or the number of a camera of Linux (/dev/video<number>).
        max_pixels: videos whose frames have more are refused before they are decoded.

    Attributes:
        time_base: seconds a tick.
        rate: frames a second, on average.
        count: the number of frames that the file says it has, or 0.
        seconds: how long it says it is, or 0.

    Raises:
        VideoError: PyAV is not installed, no such file or camera, no video, too many pixels; while iterating, whatever
            is wrong with the rest of the file.
    """

    def __init__(self, source: pathlib.Path | int, max_pixels: int):
        self.av, self.source = require_av(), source
        self.camera = isinstance(source, int)
        self.name = f"camera {source}" if self.camera else str(source)
        try:
            if self.camera:
                self.container = self.av.open(f"/dev/video{source}", format="v4l2")
            else:
                self.container = _open_file(self.av, source)
        except (self.av.FFmpegError, OSError) as error:
            raise VideoError(f"video: {self.name} cannot be read: {_reason(error)}") from None
        if not self.container.streams.video:
            self.container.close()
            raise VideoError(f"video: {self.name} has no pictures")
        self.stream = self.container.streams.video[0]
        self.stream.thread_type = "AUTO"
        if self.stream.width * self.stream.height > max_pixels:
            self.container.close()
            raise VideoError(
                f"video: {self.name} has {self.stream.width} x {self.stream.height} pixels, more than max_pixels "
                f"(--max-pixels) = {max_pixels}"
            )
        self.rate = self.stream.average_rate or self.stream.guessed_rate or Fraction(25)
        self.time_base = self.stream.time_base or 1 / self.rate
        self.count = self.stream.frames
        self.seconds = max(float(self._seconds()), float(self.count / self.rate))

    def __enter__(self) -> "Video":
        return self

    def __exit__(self, *error: object) -> None:
        self.container.close()

    def __iter__(self) -> Iterator[Frame]:
        first, last, read = None, -1, 0
        step = max(round(1 / self.rate / self.time_base), 1)
        try:
            for frame in self.container.decode(self.stream):
                # All frames have the size of the first; a stream may change it.
                pixels = frame.to_ndarray(format="rgb24", width=self.stream.width, height=self.stream.height)
                ticks = last + step if frame.pts is None else max(frame.pts, last + 1)
                first, last, read = ticks if first is None else first, ticks, read + 1
                yield Frame(np.ascontiguousarray(np.rot90(pixels, frame.rotation // 90)), ticks)
        except (self.av.FFmpegError, OSError) as error:
            raise VideoError(f"video: {self.name} cannot be read after {read} frames: {_reason(error)}") from None
        if first is None:
            raise VideoError(f"video: {self.name} has no frames")
        ended = float((last + step - first) * self.time_base)
        if self.seconds - ended > BREAK:  # decoders do not always notice
            raise VideoError(f"video: {self.name} breaks off after {read} frames, {ended:.1f} of {self.seconds:.1f} s")

    def _seconds(self) -> Fraction | float:
        if self.stream.duration:
            return self.stream.duration * self.time_base
        hours, *rest = self.stream.metadata.get("DURATION", "0").split(":")  # of Matroska: 00:00:04.000000000
        try:
            return sum(float(part) * unit for part, unit in zip([hours, *rest], (3600, 60, 1), strict=False))
        except ValueError:
            return 0


class VideoWriter:
    """Writes frames as an .mp4 (H.264), with the times and the sound of the video that they come from.

    Use it as a context; the file is complete after it.

    Args:
        path: of the file; its ending may be any.
        video: where the frames come from.

    Attributes:
        silent: why the sound is not copied, "" if it is or there is none.
    """

    def __init__(self, path: pathlib.Path, video: Video):
        self.video, self.silent = video, ""
        self.output = video.av.open(os.path.abspath(path), "w", format="mp4")
        self.stream = None
        self.sound = None if video.camera else _open_file(video.av, video.source)
        self.copied, self.packets, self.waiting = None, iter(()), None

    def __enter__(self) -> "VideoWriter":
        return self

    def write(self, picture: Image.Image, ticks: int) -> None:
        """Add a frame, RGB; all have the size of the first."""
        if self.stream is None:
            self._begin(picture.size)
        frame = self.video.av.VideoFrame.from_image(picture)
        frame.pts, frame.time_base = ticks, self.video.time_base
        self._copy_sound(ticks * self.video.time_base)
        self._mux(self.stream.encode(frame))

    def _mux(self, packets: Any) -> None:
        try:
            self.output.mux(packets)
        except self.video.av.FFmpegError as error:
            raise OSError(error.errno, f"the video cannot be written: {_reason(error)}") from None

    def _begin(self, size: tuple[int, int]) -> None:
        self.stream = self.output.add_stream("libx264", rate=self.video.rate, options={"crf": "20"})
        self.stream.width, self.stream.height = size
        # Half the resolution of color, which every player knows, needs even sides.
        self.stream.pix_fmt = "yuv420p" if size[0] % 2 == size[1] % 2 == 0 else "yuv444p"
        self.stream.codec_context.time_base = self.video.time_base
        streams = self.sound.streams.audio if self.sound else ()
        if streams:
            codec = streams[0].codec_context.name
            if codec in self.output.supported_codecs:
                self.copied = self.output.add_stream_from_template(streams[0])
                self.packets = (packet for packet in self.sound.demux(streams[0]) if packet.dts is not None)
            else:
                self.silent = f"its sound is {codec}, which .mp4 does not take"

    def _copy_sound(self, until: Any) -> None:
        """Copy the packets of sound up to a time in seconds; None copies the rest."""
        try:
            while (packet := self.waiting or next(self.packets, None)) is not None:
                self.waiting = packet
                if until is not None and packet.dts * packet.time_base > until:
                    return
                self.waiting = None
                packet.stream = self.copied
                self.output.mux(packet)
        except self.video.av.FFmpegError as error:
            self.silent, self.packets = f"its sound breaks off: {_reason(error)}", iter(())

    def __exit__(self, kind: object, *error: object) -> None:
        try:
            if kind is None and self.stream is not None:
                self._copy_sound(None)
                self._mux(self.stream.encode(None))
        finally:
            with contextlib.suppress(self.video.av.FFmpegError) if kind else contextlib.nullcontext():
                self.output.close()
            if self.sound:
                self.sound.close()


def _open_file(av: Any, path: Any) -> Any:
    """Open a file and nothing else: to FFmpeg "http:a.mp4" is an address, and a playlist names others."""
    return av.open(os.path.abspath(path), options={"protocol_whitelist": "file"})


def require_av() -> Any:
    """The package av. Raises VideoError if it is not installed."""
    try:
        import av
    except ImportError:
        raise VideoError('video: needs the package av: pip install "rpcnn[video]"') from None
    return av


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
