"""`ExactVideoFile`: a video file by PyAV, whose frames are known by their times."""

import os
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from segfolio.data.videos import Pixels, UnreadableFrame, Video
from segfolio.errors import SegfolioError

_KEPT = 16  # frames in memory, so that a video can be read backwards
_VP8_SHOWN = 0x10  # of the first byte of a frame (RFC 6386, section 9.1): others are for reference alone


class ExactVideoFile(Video):
    """As `VideoFile`, with two promises more.

    The packets are gone through once, without decoding, and tell how many frames there are and when each is shown: a
    frame is sought by its time, and the right one in every format. And each frame that the decoder leaves out or
    conceals is named, and those that depend on it; the last ones, where packets are missing.

    Raises:
        SegfolioError: a file that is no video, or PyAV is not installed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._open() as container:
            stream = container.streams.video[0]
            self.rate = float(stream.average_rate) if stream.average_rate else None
            self._times = sorted({time for packet in container.demux(stream) if (time := _shown(packet)) is not None})
            count = max(len(self._times), stream.frames)  # of the header, where it holds one
        if not self._times:
            raise SegfolioError(f"{path} cannot be opened: there is no frame in it; copy or export it again")
        self.names = [f"{frame:05d}" for frame in range(count)]
        self._size: tuple[int, int] | None = None
        self._recent: dict[int, Pixels | None] = {}
        self._coming: Iterator[tuple[int, Pixels | None]] = iter(())
        self._next = -1  # that comes, unless it is damaged; none yet

    @property
    def size(self) -> tuple[int, int]:
        if self._size is None:
            self._size = self.read(0).shape[:2]
        return self._size

    def read(self, frame: int) -> Pixels:
        if frame not in self._recent and frame < len(self._times):
            first = frame
            if not 0 <= self._next <= frame:
                first = max(0, frame - _KEPT + 1) if frame < self._next else frame
            self._decode(first, frame)
        pixels = self._recent.get(frame)
        if pixels is None:
            raise UnreadableFrame(
                f"{self.path}: frame {frame} of {len(self)} is damaged; copy or export the file again", frame
            )
        return pixels

    def files(self) -> Iterable[Path]:
        return (self.path,)

    def _decode(self, first: int, last: int) -> None:
        """Frames into memory; from where the decoder is, if nothing lies between that is not wanted."""
        if self._next < 0 or not self._next <= first <= self._next + _KEPT:
            self._coming, self._next = self._from(first), first
        while self._next <= last:
            place, pixels = next(self._coming, (len(self), None))
            self._recent |= dict.fromkeys(range(self._next, min(place, last + 1)))  # left out
            self._next = place + 1
            if place >= first and place < len(self):
                self._recent[place] = pixels
        for old in [old for old in self._recent if abs(old - last) >= _KEPT]:
            del self._recent[old]

    def _from(self, first: int) -> Iterator[tuple[int, Pixels | None]]:
        """Place and pixels of each frame that is decoded from the one on; None of one that was concealed, or that may
        depend on a damaged one, up to the next that depends on none."""
        import av

        before, broken = -1, False

        with self._open() as container:
            stream = container.streams.video[0]
            container.seek(self._times[first], stream=stream)
            for packet in container.demux(stream):
                try:
                    decoded = packet.decode()
                except av.error.FFmpegError:
                    broken = True
                    continue
                for frame in decoded:
                    time = frame.pts if frame.pts is not None else frame.dts
                    place = bisect_left(self._times, time) if time is not None else len(self)
                    broken = frame.is_corrupt or (not frame.key_frame and (broken or -1 < before < place - 1))
                    before = place
                    if first <= place < len(self._times) and self._times[place] == time:
                        yield place, None if broken else _pixels(frame)

    def _open(self) -> Any:
        try:
            import av
        except ImportError as error:
            raise SegfolioError(
                "videos are decoded exactly by PyAV; install it with `pip install 'segfolio[video]'`, or leave it to "
                "OpenCV"
            ) from error
        try:
            container = av.open(os.fspath(self.path))
            if container.streams.video:
                return container
            reason = "it holds no video"
        except (OSError, av.error.FFmpegError):
            reason = "it is damaged, cut short or no video" if self.path.is_file() else "there is no such file"
        raise SegfolioError(f"{self.path} cannot be opened: {reason}; copy or export it again")

    def __getstate__(self) -> dict[str, Any]:
        """Without what is open: each process opens the file by itself."""
        return {**vars(self), "_coming": iter(()), "_recent": {}, "_next": -1}


def _shown(packet: Any) -> int | None:
    """When the frame of a packet is shown; None of one that is not."""
    if not packet.size or (packet.stream.codec_context.name == "vp8" and not bytes(packet)[0] & _VP8_SHOWN):
        return None
    return packet.pts if packet.pts is not None else packet.dts


def _pixels(frame: Any) -> Pixels:
    """`[H, W, 3]`, turned as the file says, as OpenCV does it."""
    return np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90)))
