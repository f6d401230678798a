"""Videos: files as OpenCV writes them, and folders of frames; each frame says in its pixels which one it is."""

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from segfolio.data.formats.images import write_image

SIZE = (64, 96)
_BITS = 7
_FOURCC = {".mp4": "mp4v", ".avi": "MJPG", ".webm": "VP80"}


def frame(number: int, size: tuple[int, int] = SIZE) -> NDArray[np.uint8]:
    """`[H, W, 3]`: a texture that moves to the right; the number in black and white at the top, 8 pixels a bit."""
    noise = np.random.default_rng(0).integers(0, 120, (*size, 3)).astype(np.uint8)
    pixels = cv2.GaussianBlur(np.roll(noise, 3 * number, 1), (0, 0), 2)
    for bit in range(_BITS):
        pixels[:12, 12 * bit : 12 * (bit + 1)] = 255 if number >> bit & 1 else 0
    return pixels


def number_of(pixels: NDArray[np.uint8]) -> int:
    """The number that a frame says."""
    return sum(int(pixels[6, 12 * bit + 2 : 12 * bit + 10].mean() > 128) << bit for bit in range(_BITS))


def write_file(path: Path, frames: int, size: tuple[int, int] = SIZE) -> None:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*_FOURCC[path.suffix]), 25, size[::-1])
    for number in range(frames):
        writer.write(cv2.cvtColor(frame(number, size), cv2.COLOR_RGB2BGR))
    writer.release()


def write_folder(folder: Path, names: list[str], size: tuple[int, int] = SIZE) -> None:
    for number, name in enumerate(names):
        write_image(folder / name, frame(number, size))


def write(root: Path) -> None:
    """A folder of frames and a file, each a clip."""
    write_folder(root / "park", [f"{number:05d}.jpg" for number in range(4)])
    write_file(root / "street.mp4", 5)
