"""`Interactive`: somebody who clicks at one image until its masks are right."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from segfolio.data.formats import rle
from segfolio.data.formats.images import read_image, with_channels
from segfolio.data.formats.rle import RLE, Bools
from segfolio.data.image_space import ImageSpace
from segfolio.data.prompts import NOT_OBJECT, OBJECT, Prompts
from segfolio.data.sample import Size, to_image, to_pixels
from segfolio.errors import SegfolioError
from segfolio.inference.everything import Box, Everything, FindsAll, Found
from segfolio.inference.mask_runs import MaskRuns
from segfolio.inference.prompting import EmbeddedImages, Embedder
from segfolio.inference.seen import best_window, windows
from segfolio.layers.prompting import PromptableNetwork

Pixels = npt.NDArray[Any]
Click = tuple[float, float, int]
"""The column and the row of a pixel, and whether it is on the object, 1, or beside it, 0."""


Corners = tuple[float, float, float, float]
"""Left, top, right and bottom of a box."""


class Embedding(Protocol):
    """What is needed of `families.Promptable`, or of an `Embedder`."""

    network: PromptableNetwork
    image_space: ImageSpace

    def embedded(self, images: Tensor, sizes: Sequence[Size], own: Sequence[Size] | None = None) -> EmbeddedImages: ...


@dataclass(frozen=True)
class Answer:
    """What is shown of one object.

    Attributes:
        clicks: that were given so far.
        box: left, top, right, bottom in pixels of the image, if there is one.
        rles: M masks at the image's size, several after the first click, which can mean a part or the whole.
        scores: M, how well the network thinks that each fits.
        chosen: which of them is shown.
        window: left, top, right, bottom of what the network saw.
        logits: `[M, h, w]`, with which the network is asked the next time, in the same window.
    """

    clicks: tuple[Click, ...]
    box: Corners | None
    rles: list[RLE]
    scores: list[float]
    chosen: int
    window: Box
    logits: Tensor = field(repr=False)

    @property
    def rle(self) -> RLE:
        return self.rles[self.chosen]

    @property
    def score(self) -> float:
        return self.scores[self.chosen]

    @property
    def mask(self) -> Bools:
        """`[H, W]`, the one that is shown."""
        return self.candidates[self.chosen]

    @property
    def candidates(self) -> Bools:
        """`[M, H, W]`."""
        height, width = self.rle["size"]
        return rle.decode(self.rles, (height, width))


class View(NamedTuple):
    """A window of the image, embedded by itself, or all of it, and what makes run lengths of its masks."""

    embedded: EmbeddedImages
    runs: MaskRuns


class Interactive:
    """One image, which is embedded once, and the objects that are asked for in it, one after the other.

    Clicks are at pixels of the image as it is stored, the first one is (0, 0); a box is what lies between two columns
    and two rows. What was answered is given back to the network with the next click.

    Args:
        network: a family or an `Embedder`, or a network alone, which then sees RGB of 8 bits, normalised as ImageNet.
            It is put into evaluation.
        window: the side of square windows in pixels, of which each object is asked for in the best, as the protocols of
            tests do it: for networks that learnt on crops. A window is embedded when an object is first asked for in
            it. None for whole images.

    Raises, in all methods:
        SegfolioError: no image yet, an object that there is not, and what the methods name.
    """

    def __init__(self, network: Embedding | PromptableNetwork, window: int | None = None) -> None:
        if window is not None and window < 1:
            raise SegfolioError(f"the window of a session is {window}; give at least 1, or none for whole images")
        self.window = window
        self._asked = Embedder(network) if isinstance(network, PromptableNetwork) else network
        self._asked.network.eval()
        self._image: Tensor | None = None
        self._views: dict[Box, View] = {}
        self._steps: list[list[Answer]] = [[]]
        self.current = 0

    @torch.no_grad()
    def set_image(self, image: Pixels | Tensor | Path | str, name: str = "the image") -> None:
        """Embed an image, and forget the one before with its objects.

        Args:
            image: `[H, W]` or `[H, W, C]` array, `[C, H, W]` tensor, or a file.
            name: of the image, for errors.

        Raises:
            SegfolioError: an image that cannot be read, or of another type or number of channels.
        """
        space = self._asked.image_space
        if isinstance(image, Path | str):
            pixels = read_image(Path(image), space)
        else:
            pixels = _pixels(image)
            if wrong := space.misfit(pixels.shape[2], pixels.dtype.name):
                raise SegfolioError(f"{name} is {wrong}")
            pixels = with_channels(pixels.astype(space.dtype, copy=False), space.channels)
        self._image = to_image(pixels).as_subclass(Tensor)[None].to(self._device)
        self._views.clear()
        self.reset()
        if self.window is None:
            self._view(self._whole)

    @property
    def size(self) -> Size:
        """Height and width of the image."""
        height, width = self._stored.shape[-2:]
        return height, width

    @property
    def image(self) -> Pixels:
        """`[H, W, 3]` uint8, for the eye."""
        return to_pixels(self._asked.image_space.picture(self._stored[0].cpu()))

    @property
    def objects(self) -> list[Answer | None]:
        """What is shown of each; None of one that has not been asked for."""
        return [steps[-1] if steps else None for steps in self._steps]

    @property
    def answer(self) -> Answer | None:
        """What is shown of the current object."""
        return self.objects[self.current]

    def click(self, x: float, y: float, positive: bool | int = True) -> Answer:
        """At a pixel of the current object, or at one beside it.

        After the first click there are several masks; the one that the network thinks best is shown.

        Raises:
            SegfolioError: a click outside the image, a label other than 0 and 1.
        """
        check_click((x, y, positive), self.size)
        last, click = self.answer, (x, y, int(positive))
        if last is None:
            return self._ask((click,), None, self._window(None, (click,)))
        clicks = (*last.clicks, click)
        if _within(click, last.window):
            return self._ask(clicks, last.box, last.window, last.logits[last.chosen])
        return self._ask(clicks, last.box, self._window(None, clicks))

    def box(self, left: float, top: float, right: float, bottom: float) -> Answer:
        """Around the current object, in place of an earlier one; what lies outside the image is cut off.

        What was answered before is not given back to the network, the clicks are.

        Raises:
            SegfolioError: a box without pixels of the image.
        """
        box = inside((left, top, right, bottom), self.size)
        return self._ask(self.answer.clicks if self.answer else (), box, self._window(box))

    def ask(self, clicks: Sequence[Click] = (), box: Corners | None = None) -> Answer:
        """Ask for the current object by clicks and a box at once, whatever was asked before.

        Raises:
            SegfolioError: neither a click nor a box, and those of `click` and `box`.
        """
        if not clicks and box is None:
            raise SegfolioError("an object is asked for by a click or a box; give one")
        for click in clicks:
            check_click(click, self.size)
        box = None if box is None else inside(box, self.size)
        return self._ask(tuple(clicks), box, self._window(box, clicks))

    def start_from(self, mask: Bools | Tensor) -> Answer:
        """Ask for the current object by a mask alone, as of an earlier annotation, to be corrected by clicks; what was
        asked before is not given to the network.

        Args:
            mask: `[H, W]` of the image's size, on the object where it is not 0; of more than a window, the part in it.

        Raises:
            SegfolioError: one of another size.
        """
        height, width = self.size
        pixels = np.asarray(mask.cpu() if isinstance(mask, Tensor) else mask)
        if pixels.shape != (height, width):
            found = "x".join(map(str, pixels.shape[::-1]))
            raise SegfolioError(f"a mask is {found} pixels, expected those of the image, {width}x{height}")
        x, y, w, h = rle.boxes(rle.encode((pixels != 0)[None]))[0].tolist()
        left, top, right, bottom = window = self._window((x, y, x + w, y + h))
        logits = _logits(pixels[top:bottom, left:right] != 0, self._view(window).embedded)
        return self._ask((), None, window, torch.from_numpy(logits).to(self._device))

    def choose(self, candidate: int) -> Answer:
        """Show another of the masks of the last answer, and go on from it.

        Raises:
            SegfolioError: there is none of that number.
        """
        last = self.answer
        if last is None or not 0 <= candidate < len(last.rles):
            known = 0 if last is None else len(last.rles)
            raise SegfolioError(f"there is no candidate {candidate}; the last answer has {known}, counted from 0")
        chosen = replace(last, chosen=candidate)
        self._steps[self.current][-1] = chosen
        return chosen

    def undo(self) -> Answer | None:
        """Take back the last click or box of the current object; returns what is shown then."""
        if not self._steps[self.current]:
            raise SegfolioError("there is nothing to undo: the object has no click and no box")
        self._steps[self.current].pop()
        return self.answer

    def next_object(self) -> int:
        """Begin another object; returns its number. One that has not been asked for is taken."""
        if self._steps[-1]:
            self._steps.append([])
        self.current = len(self._steps) - 1
        return self.current

    def select(self, number: int) -> Answer | None:
        """Go back to an object; returns what is shown of it."""
        if not 0 <= number < len(self._steps):
            raise SegfolioError(f"there is no object {number}; there are {len(self._steps)}, counted from 0")
        self.current = number
        return self.answer

    def reset(self) -> None:
        """Forget all objects; the image stays."""
        self._steps, self.current = [[]], 0

    @torch.no_grad()
    def everything(self, everything: FindsAll = Everything()) -> Found:  # noqa: B008  it is immutable
        """All that the image shows; only crops are embedded for it."""
        return everything.find(self._view(self._whole).embedded, 0, self._look)

    def _look(self, box: Box) -> EmbeddedImages:
        left, top, right, bottom = box
        return self._asked.embedded(self._stored[..., top:bottom, left:right], [(bottom - top, right - left)])

    def _view(self, box: Box) -> View:
        if box not in self._views:
            embedded = self._look(box)
            self._views[box] = View(embedded, MaskRuns.of(embedded, 0, (box[1], box[0]), self.size))
        return self._views[box]

    def _window(self, box: Corners | None, clicks: Sequence[Click] = ()) -> Box:
        """What the network is to see: where most of a box is; of clicks alone, where the last is and most of them."""
        (height, width), side = self.size, self.window
        if side is None:
            return self._whole
        boxes = [
            (left, top, min(left + side, width), min(top + side, height)) for top, left in windows(self.size, side)
        ]
        if box is None:
            boxes = [each for each in boxes if _within(clicks[-1], each)]
            columns, rows, _ = zip(*clicks, strict=True)
            box = min(columns), min(rows), max(columns) + 1, max(rows) + 1
        extent = np.array([box[0], box[1], box[2] - box[0], box[3] - box[1]])
        top, left = best_window(np.array([(top, left) for left, top, *_ in boxes]), extent, side)
        return left, top, min(left + side, width), min(top + side, height)

    @property
    def _whole(self) -> Box:
        height, width = self.size
        return 0, 0, width, height

    @property
    def _stored(self) -> Tensor:
        if self._image is None:
            raise SegfolioError("there is no image yet to ask about; set one")
        return self._image

    @property
    def _device(self) -> torch.device:
        return next(self._asked.network.parameters()).device

    @torch.no_grad()
    def _ask(self, clicks: tuple[Click, ...], box: Corners | None, window: Box, logits: Tensor | None = None) -> Answer:
        """What is ambiguous, a click alone, gets several masks; all else one (2304.02643, section 3).

        Args:
            window: what the network sees; clicks outside are not asked, a box is cut.
            logits: of the answer before, in the same window.
        """
        view, device, (left, top, right, bottom) = self._view(window), self._device, window
        seen = [click for click in clicks if _within(click, window)]
        of = torch.zeros(1, dtype=torch.int64, device=device)
        prompts = Prompts(of - 1)
        if seen:
            points = [(x - left + 0.5, y - top + 0.5) for x, y, _ in seen]
            prompts.points = torch.tensor([points], device=device)
            prompts.kinds = torch.tensor([[kind for *_, kind in seen]], device=device)
        if box is not None:
            corners = np.subtract(box, (left, top, left, top)).clip(0, (right - left, bottom - top) * 2)
            prompts.boxes = torch.from_numpy(corners).float()[None].to(device)
        ambiguous = len(clicks) == 1 and box is None and logits is None
        answers = view.embedded.ask(prompts, of, None if logits is None else logits[None], multimask=ambiguous)
        masks, scores = answers.masks[0], answers.iou[0].float().cpu()
        rles = [view.runs.runs(mask) for mask in masks.float().cpu().numpy()]
        found = Answer(clicks, box, rles, scores.tolist(), int(scores.argmax()), window, masks)
        self._steps[self.current].append(found)
        return found


def _within(click: Click, box: Box) -> bool:
    (x, y, _), (left, top, right, bottom) = click, box
    return left <= x < right and top <= y < bottom


def _logits(mask: Bools, embedded: EmbeddedImages) -> npt.NDArray[np.float32]:
    """`[h, w]`, of a mask `[H, W]` what the network would have drawn: the logits of its share in each cell."""
    network, (height, width) = embedded.network, embedded.seen[0]
    square = np.zeros((network.image_size, network.image_size), np.float32)
    square[:height, :width] = cv2.resize(mask.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    share = cv2.resize(square, (network.mask_size, network.mask_size), interpolation=cv2.INTER_AREA)
    share = share.clip(1e-3, 1 - 1e-3)
    return np.log(share / (1 - share))


def check_click(click: Click, size: Size) -> None:
    """Raises the one sentence on a click outside an image of that height and width, or of another label than 0 and
    1."""
    (x, y, label), (height, width) = click, size
    if label not in (OBJECT, NOT_OBJECT):
        raise SegfolioError(f"the label of a click is {label}, expected 1 (on the object) or 0 (beside it)")
    if not (0 <= x <= width - 1 and 0 <= y <= height - 1):
        raise SegfolioError(f"a click is at x {x:g}, y {y:g}, outside the image of {width}x{height} pixels")


def inside(box: Corners, size: Size) -> Corners:
    """A box without what lies outside an image of that height and width.

    Raises:
        SegfolioError: nothing is left of it.
    """
    height, width = size
    left, top, right, bottom = max(box[0], 0), max(box[1], 0), min(box[2], width), min(box[3], height)
    if not (left < right and top < bottom):
        raise SegfolioError(
            f"a box is {', '.join(f'{x:g}' for x in box)}; expected left, top, right, bottom with left < right and top "
            f"< bottom, in the image of {width}x{height} pixels"
        )
    return left, top, right, bottom


def _pixels(image: Pixels | Tensor) -> Pixels:
    """`[H, W, C]` of an array or a tensor."""
    pixels = to_pixels(image.cpu()) if isinstance(image, Tensor) and image.ndim == 3 else np.asarray(image)
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    if pixels.ndim != 3 or not pixels.size:
        raise SegfolioError(
            f"an image is of shape {list(np.shape(image))}, expected [H, W], [H, W, C], or a tensor [C, H, W]"
        )
    return pixels
