"""The file of prompts of `segfolio track`: which object is meant, in which frame, and by what."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from segfolio.data.formats import rle
from segfolio.data.formats.images import read_id_map
from segfolio.data.formats.rle import RLE
from segfolio.data.prompts import PADDING, Prompts
from segfolio.data.sample import Size
from segfolio.data.videos import Video
from segfolio.errors import SegfolioError, did_you_mean
from segfolio.inference.interactive import Click, Corners, check_click, inside
from segfolio.words import counted

MOST = 254
"""The largest number of an object: a palette PNG has 256 ids, 0 is of no object, and 255 often of pixels that do not
count."""

_KEYS = ("frame", "object", "points", "box", "mask")


@dataclass(frozen=True)
class Said:
    """What is said of an object in a frame: points, a box, or both; or its mask.

    Attributes:
        frame: its place in the video.
        object: its number, 1 to `MOST`.
        clicks: columns and rows of pixels, from 0.
    """

    frame: int
    object: int
    clicks: tuple[Click, ...] = ()
    box: Corners | None = None
    mask: RLE | None = None


def read_prompts(path: Path, video: Video) -> list[Said]:
    """A JSON list of `{"frame": 0, "object": 1, "points": [[210, 350, 1], [250, 220, 0]], "box": [x, y, x, y]}`, or
    with `"mask": "FILE.png"` or COCO's run lengths or polygons in place of the last two.

    A frame is given by its place, from 0, or by its name. A point without its third number is on the object. A file of
    a mask is looked for beside the JSON file; what is not 0 in it is the object.

    Raises:
        SegfolioError: no such list, and what is wrong with one of its entries.
    """
    found: dict[tuple[int, int], Said] = {}
    for place, entry in enumerate(_entries(path)):
        try:
            said = _said(entry, video, path.parent)
        except SegfolioError as error:
            raise SegfolioError(f"{path}, entry {place}: {error}") from None
        if (said.frame, said.object) in found:
            raise SegfolioError(
                f"{path}, entry {place}: object {said.object} has two prompts in frame {video.names[said.frame]}; give "
                "all points and the box of one together"
            )
        found[said.frame, said.object] = said
    return list(found.values())


def files_of(path: Path) -> list[Path]:
    """The file itself, and those of masks."""
    return [path, *(path.parent / entry["mask"] for entry in _entries(path) if isinstance(entry.get("mask"), str))]


def together(said: Sequence[Said], size: Size) -> list[Prompts]:
    """What is said in one frame, as a tracker is asked: points and boxes in one, masks in another."""
    asked = []
    if drawn := [one for one in said if one.mask is None]:
        most = max(len(one.clicks) for one in drawn)
        points = [[(x + 0.5, y + 0.5) for x, y, _ in one.clicks] + [(0, 0)] * (most - len(one.clicks)) for one in drawn]
        kinds = [[kind for *_, kind in one.clicks] + [PADDING] * (most - len(one.clicks)) for one in drawn]
        prompts = Prompts(torch.tensor([one.object for one in drawn]))
        prompts.points = torch.tensor(points, dtype=torch.float32).reshape(len(drawn), most, 2)
        prompts.kinds = torch.tensor(kinds, dtype=torch.int64).reshape(len(drawn), most)
        if any(one.box for one in drawn):
            prompts.boxes = torch.tensor([one.box or (torch.nan,) * 4 for one in drawn], dtype=torch.float32)
        asked.append(prompts)
    if masks := [one for one in said if one.mask is not None]:
        decoded = rle.decode([one.mask for one in masks if one.mask is not None], size)
        asked.append(Prompts(torch.tensor([one.object for one in masks]), masks=torch.from_numpy(decoded)))
    return asked


def _entries(path: Path) -> list[dict[str, Any]]:
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise SegfolioError(f"{path} cannot be read: {(error.strerror or 'unknown error').lower()}") from None
    except ValueError as error:  # of JSON, and of bytes that are no text
        raise SegfolioError(f"{path} is no JSON ({error}); expected a list of prompts") from None
    if not isinstance(content, list) or not all(isinstance(entry, dict) for entry in content):
        raise SegfolioError(
            f"{path} holds no list of mappings; expected prompts as "
            '[{"frame": 0, "object": 1, "points": [[210, 350, 1]]}]'
        )
    if not content:
        raise SegfolioError(f"{path} holds no prompts; say in at least one frame what is meant")
    return content


def _said(entry: Mapping[str, Any], video: Video, folder: Path) -> Said:
    for key in entry:
        if key not in _KEYS:
            near = did_you_mean(key, _KEYS) or f"; expected {', '.join(_KEYS[:-1])} or {_KEYS[-1]}"
            raise SegfolioError(f"there is no key {key!r}{near}")
    for key in _KEYS[:2]:
        if key not in entry:
            raise SegfolioError(f"the key {key!r} is missing")
    number = entry["object"]
    if type(number) is not int or not 1 <= number <= MOST:
        raise SegfolioError(f"object is {_short(number)}, expected a number from 1 to {MOST}")
    frame = _frame(entry["frame"], video)
    clicks, box, mask = (entry.get(key) for key in _KEYS[2:])
    if mask is not None and (clicks or box is not None):
        raise SegfolioError(f"object {number} has a mask, and points or a box; give the mask alone")
    if mask is not None:
        return Said(frame, number, mask=_mask(mask, video.size, folder))
    if not clicks and box is None:
        raise SegfolioError(f"nothing is said of object {number}; give points, a box or a mask")
    return Said(frame, number, _clicks(clicks or [], video.size), None if box is None else _box(box, video.size))


def _frame(given: Any, video: Video) -> int:
    if isinstance(given, str):
        if given not in video.names:
            raise SegfolioError(
                f"there is no frame {given!r}; those of {video.path} are named {video.names[0]} to {video.names[-1]}, "
                "and a number without quotation marks is a place from 0"
            )
        return list(video.names).index(given)
    if type(given) is not int or not 0 <= given < len(video):
        raise SegfolioError(
            f"there is no frame {_short(given)}; frames are counted from 0, and {video.path} has "
            f"{counted(len(video), 'frame')}"
        )
    return given


def _clicks(given: Any, size: Size) -> tuple[Click, ...]:
    if not isinstance(given, list) or not all(_numbers(point, 2, 3) for point in given):
        raise SegfolioError(f"points are {_short(given)}, expected a list of [x, y] or [x, y, 1 or 0]")
    clicks = [(point[0], point[1], point[2] if len(point) == 3 else 1) for point in given]
    for click in clicks:
        check_click(click, size)
    return tuple(clicks)


def _box(given: Any, size: Size) -> Corners:
    if not _numbers(given, 4, 4):
        raise SegfolioError(f"box is {_short(given)}, expected [left, top, right, bottom]")
    return inside((given[0], given[1], given[2], given[3]), size)


def _mask(given: Any, size: Size, folder: Path) -> RLE:
    height, width = size
    if isinstance(given, str):
        ids = read_id_map(folder / given)
        if ids.shape != size:
            raise SegfolioError(
                f"the mask {folder / given} is {ids.shape[1]}x{ids.shape[0]} pixels, the frames are {width}x{height}"
            )
        (mask,) = rle.encode((ids != 0)[None])
    else:
        mask = rle.from_segmentation(given, size)
    if not np.any(rle.areas([mask])):
        raise SegfolioError("the mask is empty; give one of a frame in which the object is seen")
    return mask


def _numbers(given: Any, least: int, most: int) -> bool:
    return isinstance(given, list) and least <= len(given) <= most and {type(x) for x in given} <= {int, float}


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:40]}..."
