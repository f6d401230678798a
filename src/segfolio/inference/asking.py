"""What a protocol of prompts is; objects of a batch asked for, some of all images at a time, and by their boxes."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

from segfolio.data.dataset import SegmentationDataset
from segfolio.data.formats import rle
from segfolio.data.formats.rle import RLE
from segfolio.data.labels import LabelSpace
from segfolio.data.prompts import PADDING, Prompts
from segfolio.data.sample import Batch, Prediction, Prompted, Target
from segfolio.errors import SegfolioError
from segfolio.inference.seen import Embeds, Seen, on_host, runs
from segfolio.layers.prompting import best
from segfolio.metrics import Evaluator


class Asked(Embeds, Protocol):
    """What a protocol needs of a family."""

    labels: LabelSpace


class PromptProtocol:
    """How a network that is prompted is tested.

    Attributes:
        main_metric: the figure of validation by which the best checkpoint is chosen.
    """

    main_metric: str

    @property
    def words(self) -> str:
        """In the ledger."""
        raise NotImplementedError

    def evaluators(self, labels: LabelSpace) -> list[Evaluator]:
        """What measures the answers."""
        raise NotImplementedError

    def answer(self, family: Asked, batch: Batch) -> list[Prediction]:
        """One prediction of each image; the truth may be read."""
        raise NotImplementedError

    def check(self, dataset: SegmentationDataset, split: str) -> None:
        """Raises the one sentence on a split that cannot be tested so."""


@dataclass
class Wanted:
    """One object of an image of the batch.

    Attributes:
        image: which one.
        of: its place among the segments, or whatever else it is known by.
        box: `[4]`, x, y, width and height at the image's original size.
        truth: its mask, where there is one.
        place: where it is seen, see `Seen`.
    """

    image: int
    of: int
    box: npt.NDArray[np.float64]
    truth: RLE | None = None
    place: int = -1


@dataclass
class Answer:
    """What was answered for one object, round by round; clicks are at the image's original size."""

    rles: list[RLE] = field(default_factory=list)
    iou: list[float] = field(default_factory=list)
    points: list[tuple[float, float]] = field(default_factory=list)
    kinds: list[int] = field(default_factory=list)
    candidates: list[RLE] = field(default_factory=list)
    seconds: float = 0.0


Ask = Callable[[Seen, Sequence[Wanted]], list[Answer]]


def objects_of(targets: Sequence[Target], names: Sequence[str]) -> Iterator[Wanted]:
    """The objects of images, by image: what is no crowd and has a pixel.

    Raises:
        SegfolioError: an image without objects, of this name.
    """
    for image, (target, name) in enumerate(zip(targets, names, strict=True)):
        if (segments := target.segments) is None:
            raise SegfolioError(
                f"{name} has no objects but a semantic map alone; a promptable network is asked for objects (some "
                "datasets read them with instances: true)"
            )
        masks = segments.rles
        counts = rle.areas(masks) > 0
        for of, (mask, box, crowd) in enumerate(zip(masks, rle.boxes(masks), segments.crowd.tolist(), strict=True)):
            if counts[of] and not crowd:
                yield Wanted(image, of, box, mask)


def check_split(dataset: SegmentationDataset, split: str) -> None:
    """Raises the one sentence on a split whose images have no objects."""
    if (target := dataset[0].target) is not None:
        list(objects_of([target], [f"{split}, whose first image is {dataset[0].image_id},"]))


def in_passes(
    ask: Ask, family: Embeds, batch: Batch, objects: Sequence[Wanted], window: int | None, at_once: int
) -> list[Answer]:
    """Embed what is needed, once, and ask for all objects.

    Args:
        ask: for some objects; those of one place come in a row.
        window: see `Seen.of`.
        at_once: objects of one pass.

    Returns:
        the answer of each object.
    """
    if not objects:
        return []
    boxes = np.stack([wanted.box for wanted in objects])
    seen, places = Seen.of(family, batch, [wanted.image for wanted in objects], boxes, window)
    for wanted, place in zip(objects, places, strict=True):
        wanted.place = place
    seen.settle()
    order = sorted(range(len(objects)), key=lambda i: places[i])
    found: dict[int, Answer] = {}
    for some in (order[start : start + at_once] for start in range(0, len(order), at_once)):
        found |= dict(zip(some, ask(seen, [objects[i] for i in some]), strict=True))
    return [found[i] for i in range(len(objects))]


def ask_boxes(seen: Seen, objects: Sequence[Wanted], refine: bool = False) -> list[Answer]:
    """One mask for the box of each object: that of the token for prompts which are not ambiguous, as the original does
    it for boxes (facebookresearch/segment-anything, `multimask_output=False`).

    Args:
        refine: ask twice, the second time with the mask of the first answer that the network thinks best beside the
            box (2304.02643, appendix D.4, zero-shot instance segmentation).
    """
    places = [wanted.place for wanted in objects]
    prompts = Prompts(torch.arange(len(objects)), boxes=torch.from_numpy(_corners(seen, objects)).float())
    start = time.perf_counter()
    answers = seen.ask(prompts, places, multimask=refine)
    if refine:
        answers = seen.ask(prompts, places, best(answers)[0], multimask=False)
    iou, *masks = on_host(answers.iou.float(), *seen.drawn(answers.masks[:, 0], places))
    each = (time.perf_counter() - start) / len(objects)
    found = [
        coded for (place, *_), some in zip(runs(places), masks, strict=True) for coded in seen.encoded(some, place)
    ]
    return [Answer([mask], [estimate], seconds=each) for mask, estimate in zip(found, iou[:, 0].tolist(), strict=True)]


def gathered(objects: Sequence[Wanted], answers: Sequence[Answer], images: int, rounds: int) -> list[Prompted]:
    """The answers of each image, in the order of its objects."""
    mine: list[list[tuple[Wanted, Answer]]] = [[] for _ in range(images)]
    for wanted, answer in zip(objects, answers, strict=True):
        mine[wanted.image].append((wanted, answer))
    return [_prompted(pairs, rounds) for pairs in mine]


def _prompted(pairs: Sequence[tuple[Wanted, Answer]], rounds: int) -> Prompted:
    of = torch.tensor([wanted.of for wanted, _ in pairs], dtype=torch.int64)
    answers = [answer for _, answer in pairs]
    points, kinds = torch.zeros(len(of), rounds, 2), torch.full((len(of), rounds), PADDING)
    for row, answer in enumerate(answers):
        for column, (point, kind) in enumerate(zip(answer.points, answer.kinds, strict=True)):
            points[row, column], kinds[row, column] = torch.tensor(point), kind
    return Prompted(
        [answer.rles for answer in answers],
        torch.tensor([answer.iou for answer in answers], dtype=torch.float32).reshape(len(of), rounds),
        of,
        Prompts(of, points, kinds),
        [answer.candidates for answer in answers],
        sum(answer.seconds for answer in answers),
    )


def _corners(seen: Seen, objects: Sequence[Wanted]) -> npt.NDArray[np.float64]:
    """`[P, 4]`, left, top, right, bottom in pixels of the places, and no further than these reach."""
    corners = np.stack([np.concatenate([wanted.box[:2], wanted.box[:2] + wanted.box[2:]]) for wanted in objects])
    places = [seen.places[wanted.place] for wanted in objects]
    corners -= np.array([(place.left, place.top) * 2 for place in places])
    return corners.clip(0, np.array([place.size[::-1] * 2 for place in places]))
