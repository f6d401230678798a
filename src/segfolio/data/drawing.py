"""Drawn landscapes with things on them: what the datasets without files are made of."""

import colorsys
import math
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from segfolio.data.labels import LabelSpace
from segfolio.data.sample import Size

Array = npt.NDArray[np.floating]
Map = npt.NDArray[np.uint8]
Points = npt.NDArray[np.float64]
"""Vertices `[N, 2]`, x and y."""

Tone = tuple[tuple[float, float], ...]
"""Ranges of saturation and value."""

STUFF = ("sky", "water", "grass", "sand")


class Thing(NamedTuple):
    """A star or polygon that rises from its outline to a flat top; lengths in radii of its tips."""

    name: str
    tips: int
    inner: float  # radius between two tips
    top: float  # radius of the flat top


THINGS = (
    Thing("circle", 12, 1.0, 0.0),
    Thing("square", 4, math.cos(math.pi / 4), 0.6),
    Thing("triangle", 3, math.cos(math.pi / 3), 0.0),
    Thing("star", 5, 0.48, 0.0),
)
LABELS = LabelSpace(
    names=(*STUFF, *(thing.name for thing in THINGS)),
    things=tuple(thing.name for thing in THINGS),
    palette=(
        (142, 202, 230),
        (33, 118, 174),
        (106, 153, 78),
        (233, 196, 106),
        (214, 40, 40),
        (123, 44, 191),
        (247, 127, 0),
        (255, 214, 10),
    ),
)
PALE: Tone = (0.2, 0.5), (0.7, 0.95)
MUTED: Tone = (0.3, 0.6), (0.55, 0.85)
VIVID: Tone = (0.55, 0.9), (0.7, 1.0)
_NOISE = 5  # grey levels
_SHADOW = np.array([1.5, 2.5])  # right, down
_SHIFT = 4  # bits of a vertex below the pixel


def landscape(rng: np.random.Generator, size: Size) -> tuple[Array, Map]:
    """Layers of stuff, sky on top: picture `[3, H, W]` in grey levels, class indices `[H, W]`."""
    (h, w), scale = size, min(size) / 96
    y, x = np.arange(h, dtype=np.float32)[:, None], np.arange(w, dtype=np.float32)
    semantic = np.zeros(size, np.uint8)
    hue = rng.random()
    picture = color(rng, hue, PALE) + _texture(rng, 0, y, x)
    below = rng.permutation([1, 2, 3])[: rng.integers(2, 4)]
    for stuff, edge in zip(below.tolist(), np.linspace(0.3, 1, len(below), endpoint=False), strict=True):
        hue += rng.uniform(0.1, 0.3)
        a, b = rng.uniform(0, 2 * np.pi, 2)
        waves = 5 * np.sin(x / (17 * scale) + a) + 2 * np.sin(x / (7 * scale) + b)
        depth = y - h * (edge + rng.uniform(-0.06, 0.06)) - scale * waves
        _lay(picture, color(rng, hue, MUTED) + _texture(rng, stuff, y, x), np.clip(depth + 0.5, 0, 1))
        semantic[depth >= 0] = stuff
    return picture, semantic


def _texture(rng: np.random.Generator, stuff: int, y: Array, x: Array) -> Array:
    """What makes `STUFF[stuff]` look as it does: `[H, W]` grey levels around 0.

    Args:
        y: `[H, 1]` pixels.
        x: `[W]` pixels.
    """
    a, b = rng.uniform(0, 2 * np.pi, 2).astype(np.float32)
    if STUFF[stuff] == "sky":
        return 70 * (y / len(y) - 0.2) + 6 * np.sin(x / 40 + a)
    if STUFF[stuff] == "water":
        return 18 * np.sin(y * 1.15 + 1.6 * np.sin(x / 5 + a) + b)
    if STUFF[stuff] == "grass":
        return 18 * np.sin(x * 1.7 + 1.2 * np.sin(y / 4 + a) + 2.5 * np.sin(x / 9 + b))
    return 80 * cv2.GaussianBlur(rng.standard_normal((len(y), len(x)), np.float32), (0, 0), 1.1)


def outline(thing: Thing, radius: float, turn: float) -> Points:
    """A shape around 0 that is as large as a circle of `radius`, turned by an angle."""
    vertex, half_angle = np.arange(2 * thing.tips), np.pi / thing.tips
    angles = turn + vertex * half_angle
    area = thing.tips * thing.inner * np.sin(half_angle)
    radii = np.where(vertex % 2, thing.inner, 1) * radius * np.sqrt(np.pi / area)
    return np.stack([np.cos(angles), np.sin(angles)], -1) * radii[:, None]


def add_thing(picture: Array, thing: Thing, points: Points, centre: Points, paint: Array) -> None:
    """Draw a thing over a picture `[3, H, W]`, and its shadow, in place.

    Args:
        centre: `[2]`, x and y.
        paint: its colour, `[3, 1, 1]`.
    """
    size = (picture.shape[1], picture.shape[2])
    picture *= 1 - 0.4 * cv2.GaussianBlur(cover(points + _SHADOW, size), (0, 0), 2)
    _lay(picture, paint * _shade(thing, points, centre, size), cover(points, size))


def cover(points: Points, size: Size) -> Array:
    """How much of each pixel a polygon covers, `[H, W]` in [0, 1]."""
    canvas = np.zeros(size, np.uint8)
    cv2.fillPoly(canvas, [_fixed(points)], 255, cv2.LINE_AA, shift=_SHIFT)
    return canvas.astype(np.float32) / 255


def _fixed(points: Points) -> npt.NDArray[np.int32]:
    return np.round(points * 2**_SHIFT).astype(np.int32)


def _shade(thing: Thing, points: Points, centre: Points, size: Size) -> Array:
    """Light from the upper left on the facets of a shape that rises to its centre, `[H, W]` around 1."""
    ends = np.roll(points, -1, 0)
    x, y = (ends - points).T / np.hypot(*(ends - points).T)
    light = 1 + 0.33 * (0.8 * x - 0.6 * y)
    facets = np.stack([np.broadcast_to(centre, points.shape), points, ends], 1)
    canvas = np.ones(size, np.float32)
    for facet, value in zip(_fixed(facets), light.tolist(), strict=True):
        cv2.fillConvexPoly(canvas, facet, value, shift=_SHIFT)
    if thing.top:
        cv2.fillConvexPoly(canvas, _fixed(centre + thing.top * (points - centre)), 1.0, shift=_SHIFT)
    return canvas


def color(rng: np.random.Generator, hue: float, tone: Tone) -> Array:
    """A random colour of a hue in turns: `[3, 1, 1]` RGB in grey levels."""
    saturation, value = (rng.uniform(*limits) for limits in tone)
    return np.array(colorsys.hsv_to_rgb(hue % 1, saturation, value), np.float32)[:, None, None] * 255


def developed(rng: np.random.Generator, picture: Array) -> npt.NDArray[np.uint8]:
    """A picture `[3, H, W]` with the noise of a camera, as pixels `[H, W, 3]`."""
    noisy = picture + rng.standard_normal(picture.shape, np.float32) * _NOISE
    return np.clip(noisy, 0, 255).astype(np.uint8).transpose(1, 2, 0)


def _lay(picture: Array, over: Array, cover: Array) -> None:
    """Blend a picture or a colour over another, in place."""
    picture += (over - picture) * cover
