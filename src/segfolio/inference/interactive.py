"""`Interactive`: somebody who clicks at one image until its masks are right."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

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
from segfolio.inference.everything import Box, Everything, Found
from segfolio.inference.mask_runs import MaskRuns
from segfolio.inference.prompting import EmbeddedImages, Embedder
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
        logits: `[M, h, w]`, with which the network is asked the next time.
    """

    clicks: tuple[Click, ...]
    box: Corners | None
    rles: list[RLE]
    scores: list[float]
    chosen: int
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


class Interactive:
    """One image, which is embedded once, and the objects that are asked for in it, one after the other.

    Clicks are at pixels of the image as it is stored, the first one is (0, 0); a box is what lies between two columns
    and two rows. What was answered is given back to the network with the next click.

    Args:
        network: a family or an `Embedder`, or a network alone, which then sees RGB of 8 bits, normalised as ImageNet.
            It is put into evaluation.

    Raises, in all methods:
        SegfolioError: no image yet, an object that there is not, and what the methods name.
    """

    def __init__(self, network: Embedding | PromptableNetwork) -> None:
        self._asked = Embedder(network) if isinstance(network, PromptableNetwork) else network
        self._asked.network.eval()
        self._seen: tuple[Tensor, EmbeddedImages] | None = None
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
        batch = to_image(pixels).as_subclass(Tensor)[None].to(self._device)
        embedded = self._asked.embedded(batch, [pixels.shape[:2]])
        self._seen, self._runs = (batch, embedded), MaskRuns.of(embedded, 0)
        self.reset()

    @property
    def size(self) -> Size:
        """Height and width of the image."""
        return self._there.sizes[0]

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
        last = self.answer
        clicks = (*(last.clicks if last else ()), (x, y, int(positive)))
        return self._ask(clicks, last.box if last else None, last.logits[last.chosen] if last else None)

    def box(self, left: float, top: float, right: float, bottom: float) -> Answer:
        """Around the current object, in place of an earlier one; what lies outside the image is cut off.

        What was answered before is not given back to the network, the clicks are.

        Raises:
            SegfolioError: a box without pixels of the image.
        """
        box = inside((left, top, right, bottom), self.size)
        return self._ask(self.answer.clicks if self.answer else (), box, None)

    def ask(self, clicks: Sequence[Click] = (), box: Corners | None = None) -> Answer:
        """Ask for the current object by clicks and a box at once, whatever was asked before.

        Raises:
            SegfolioError: neither a click nor a box, and those of `click` and `box`.
        """
        if not clicks and box is None:
            raise SegfolioError("an object is asked for by a click or a box; give one")
        for click in clicks:
            check_click(click, self.size)
        return self._ask(tuple(clicks), None if box is None else inside(box, self.size), None)

    def start_from(self, mask: Bools) -> Answer:
        """Ask for the current object by a mask alone, as of an earlier annotation, to be corrected by clicks.

        Args:
            mask: `[H, W]` of the image's size, on the object where it is not 0.

        Raises:
            SegfolioError: one of another size.
        """
        height, width = self.size
        if mask.shape != (height, width):
            found = "x".join(map(str, mask.shape[::-1]))
            raise SegfolioError(f"a mask is {found} pixels, expected those of the image, {width}x{height}")
        self._steps[self.current].clear()
        return self._ask((), None, torch.from_numpy(self._logits(mask != 0)).to(self._device))

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
    def everything(self, everything: Everything = Everything()) -> Found:  # noqa: B008  it is immutable
        """All that the image shows; only crops are embedded for it."""
        return everything.find(self._there, 0, self._look)

    def _look(self, box: Box) -> EmbeddedImages:
        left, top, right, bottom = box
        return self._asked.embedded(self._stored[..., top:bottom, left:right], [(bottom - top, right - left)])

    @property
    def _there(self) -> EmbeddedImages:
        return self._image_and_embedding[1]

    @property
    def _stored(self) -> Tensor:
        return self._image_and_embedding[0]

    @property
    def _image_and_embedding(self) -> tuple[Tensor, EmbeddedImages]:
        if self._seen is None:
            raise SegfolioError("there is no image yet to ask about; set one")
        return self._seen

    @property
    def _device(self) -> torch.device:
        return next(self._asked.network.parameters()).device

    @torch.no_grad()
    def _ask(self, clicks: tuple[Click, ...], box: Corners | None, logits: Tensor | None) -> Answer:
        """What is ambiguous, a click alone, gets several masks; all else one (2304.02643, section 3)."""
        device, image = self._device, self._there
        of = torch.zeros(1, dtype=torch.int64, device=device)
        prompts = Prompts(of - 1)
        if clicks:
            prompts.points = torch.tensor([[(x + 0.5, y + 0.5) for x, y, _ in clicks]], device=device)
            prompts.kinds = torch.tensor([[kind for *_, kind in clicks]], device=device)
        if box is not None:
            prompts.boxes = torch.tensor([box], dtype=torch.float32, device=device)
        ambiguous = len(clicks) == 1 and box is None and logits is None
        answers = image.ask(prompts, of, None if logits is None else logits[None], multimask=ambiguous)
        masks, scores = answers.masks[0], answers.iou[0].float().cpu()
        rles = [self._runs.runs(mask) for mask in masks.float().cpu().numpy()]
        found = Answer(clicks, box, rles, scores.tolist(), int(scores.argmax()), masks)
        self._steps[self.current].append(found)
        return found

    def _logits(self, mask: Bools) -> npt.NDArray[np.float32]:
        """`[h, w]`, of a mask `[H, W]` what the network would have drawn: the logits of its share in each cell."""
        network, (height, width) = self._there.network, self._there.seen[0]
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
