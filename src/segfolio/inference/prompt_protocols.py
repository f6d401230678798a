"""Test protocols of promptable networks: what they are asked, and what of the answer is measured.

A protocol is a value in YAML: `test: {protocol: clicks}`, a preset, or a class with its arguments, such as
`class_path: segfolio.inference.prompt_protocols.Clicks` and `init_args: {clicks: 10, window: 128}`. All masks have the
image's original size.
"""

import time
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from segfolio.data.dataset import SegmentationDataset
from segfolio.data.formats import rle
from segfolio.data.formats.rle import RLE
from segfolio.data.labels import LabelSpace
from segfolio.data.prompts import Prompts
from segfolio.data.sample import Batch, Prediction
from segfolio.errors import SegfolioError, did_you_mean
from segfolio.inference import video_protocols
from segfolio.inference.all_masks import AllMasks
from segfolio.inference.asking import (
    Answer,
    Asked,
    PromptProtocol,
    Wanted,
    ask_boxes,
    check_split,
    gathered,
    in_passes,
    objects_of,
)
from segfolio.inference.clicks import Click, first_click, next_click
from segfolio.inference.everything import TRANSFORMERS, Everything
from segfolio.inference.seen import Seen, on_host, runs
from segfolio.metrics import BoxMetric, Evaluator, InteractiveMetric

Bools = npt.NDArray[np.bool_]


class OfObjects(PromptProtocol):
    """Each object of the truth is asked for: what is no crowd and has a pixel.

    Args:
        window: the side of square windows in pixels, which overlap by half of it; each object is asked for in the one
            that holds most of its box. For networks that learnt on crops; None for whole images.
        prompts_per_pass: objects that are asked for at once.

    Raises:
        SegfolioError: a number below 1.
    """

    rounds = 1

    def __init__(self, window: int | None = None, prompts_per_pass: int = 64) -> None:
        check_numbers(self, window=window, prompts_per_pass=prompts_per_pass)
        self.window, self.prompts_per_pass = window, prompts_per_pass

    @property
    def where(self) -> str:
        return "" if self.window is None else f", in windows of {self.window} pixels that overlap by half"

    def check(self, dataset: SegmentationDataset, split: str) -> None:
        check_split(dataset, split)

    def answer(self, family: Asked, batch: Batch) -> list[Prediction]:
        objects = list(objects_of(batch.targets, batch.image_ids))
        answers = in_passes(self.ask, family, batch, objects, self.window, self.prompts_per_pass)
        found = gathered(objects, answers, len(batch), self.rounds)
        each = zip(batch.image_ids, batch.original_sizes, found, strict=True)
        return [Prediction(image_id, size, prompted=prompted) for image_id, size, prompted in each]

    def ask(self, seen: Seen, objects: Sequence[Wanted]) -> list[Answer]:
        """For some objects; those of one place come in a row."""
        raise NotImplementedError


class Clicks(OfObjects):
    """A simulated user clicks for each object until the mask is right, as `inference.clicks` says.

    The first click is answered by several masks, of which the one counts that the network thinks best; the further ones
    by one mask, and with the logits of the mask before (SAM, 2304.02643, sections 3 and 7.1, appendix D.1). In a round
    all objects are asked for at once and come to the host in one copy.

    Args:
        clicks: that an object gets at most.
        window, prompts_per_pass: see `OfObjects`.
        multimask: false to have the first click, too, answered by one mask.

    Raises:
        SegfolioError: a number below 1.
    """

    main_metric = "mIoU_1click"

    def __init__(
        self, clicks: int = 20, window: int | None = None, prompts_per_pass: int = 64, multimask: bool = True
    ) -> None:
        super().__init__(window, prompts_per_pass)
        check_numbers(self, clicks=clicks)
        self.rounds, self.multimask = clicks, multimask

    @property
    def words(self) -> str:
        return (
            f"{self.rounds} clicks on each object at most, in its middle and then in that of the deepest error"
            f"{self.where}, {'the mask of highest predicted IoU' if self.multimask else 'one mask'}"
        )

    def evaluators(self, labels: LabelSpace) -> list[Evaluator]:
        return [InteractiveMetric(labels, self.rounds)]

    def ask(self, seen: Seen, objects: Sequence[Wanted]) -> list[Answer]:
        users = [_User(seen, wanted) for wanted in objects]
        going, logits = users, None
        for _ in range(self.rounds):
            clicked = [user.click() for user in going]
            if logits is not None and not all(clicked):
                logits = logits[torch.tensor(clicked, device=logits.device)]
            going = [user for user, more in zip(going, clicked, strict=True) if more]
            if not going:
                break
            logits = _round(seen, going, logits, self.multimask and logits is None)
        return [user.answer(self.rounds) for user in users]


class Boxes(OfObjects):
    """The box around each object's mask is answered by one mask, see `ask_boxes`.

    The arguments are those of `OfObjects`.
    """

    main_metric = "mIoU_box"

    @property
    def words(self) -> str:
        return f"the box around each object{self.where}, one mask"

    def evaluators(self, labels: LabelSpace) -> list[Evaluator]:
        return [BoxMetric(labels)]

    def ask(self, seen: Seen, objects: Sequence[Wanted]) -> list[Answer]:
        return ask_boxes(seen, objects)


class _User:
    """Who wants one object, and what was answered to the clicks so far."""

    def __init__(self, seen: Seen, wanted: Wanted) -> None:
        self.place, self.number = seen.places[wanted.place], wanted.place
        assert wanted.truth is not None
        rows, columns = (np.arange(part.start, part.stop) for part in self.place.rows_columns)
        self.truth = rle.decode_window([wanted.truth], self.place.whole, rows, columns)[0]
        self.shown = np.zeros_like(self.truth)
        self.clicks: list[Click] = []
        self._answer = Answer()

    def click(self) -> bool:
        """Whether there is anything to click at."""
        found = next_click(self.truth, self.shown) if self.clicks else first_click(self.truth)
        self.clicks += [] if found is None else [found]
        return found is not None

    def see(self, masks: Bools, coded: Sequence[RLE], chosen: int, iou: float, seconds: float) -> None:
        """What was answered to the last click: M masks, which of them counts, and how well it is thought to fit."""
        self.shown = masks[chosen]
        if len(masks) > 1:
            self._answer.candidates = list(coded)
        self._answer.rles.append(coded[chosen])
        self._answer.iou.append(iou)
        self._answer.seconds += seconds

    def answer(self, rounds: int) -> Answer:
        """In as many rounds: a mask that is right stays. Of an object of which no pixel was seen there is none."""
        found = self._answer
        found.points = [(click.x + self.place.left, click.y + self.place.top) for click in self.clicks]
        found.kinds = [click.kind for click in self.clicks]
        if not found.rles:
            found.rles, found.iou = rle.encode(np.zeros((1, *self.place.whole), np.bool_)), [0.0]
        found.candidates = found.candidates or found.rles[:1]
        more = rounds - len(found.rles)
        found.rles, found.iou = found.rles + found.rles[-1:] * more, found.iou + found.iou[-1:] * more
        return found


def _round(seen: Seen, users: Sequence[_User], logits: Tensor | None, multimask: bool) -> Tensor:
    """Answer the last click of some users; returns the logits `[P, h, w]` of the masks that are shown.

    Args:
        logits: those of the round before.
        multimask: answer by several masks.
    """
    places = [user.number for user in users]
    points = torch.tensor([[click[:2] for click in user.clicks] for user in users])
    kinds = torch.tensor([[click.kind for click in user.clicks] for user in users])
    prompts = Prompts(torch.arange(len(users)), points, kinds)
    start = time.perf_counter()
    answers = seen.ask(prompts, places, logits, multimask)
    best = answers.iou.argmax(1)
    chosen, iou, *masks = on_host(best, answers.iou.float(), *seen.drawn(answers.masks, places))
    each = (time.perf_counter() - start) / len(users)
    for (place, begin, end), here in zip(runs(places), masks, strict=True):
        coded = seen.encoded(here.reshape(-1, *here.shape[2:]), place)
        for row, some in zip(range(begin, end), here, strict=True):
            first = (row - begin) * len(some)
            users[row].see(some, coded[first : first + len(some)], chosen[row], float(iou[row, chosen[row]]), each)
    return answers.masks[torch.arange(len(users), device=best.device), best]


def find(protocol: str | PromptProtocol) -> PromptProtocol:
    """A preset by its id.

    Raises:
        SegfolioError: there is none.
    """
    if isinstance(protocol, PromptProtocol):
        return protocol
    if protocol not in PRESETS:
        raise SegfolioError(
            f"there is no protocol {protocol!r} of prompts; the presets are {', '.join(PRESETS)}"
            f"{did_you_mean(protocol, PRESETS)}"
        )
    return PRESETS[protocol]


def check_numbers(protocol: PromptProtocol, **numbers: int | None) -> None:
    """Raises the one sentence on a number that is none of things."""
    for name, number in numbers.items():
        if number is not None and number < 1:
            raise SegfolioError(f"{type(protocol).__name__}: {name} is {number}; give at least 1")


PRESETS: dict[str, PromptProtocol] = {
    "clicks": Clicks(),
    "clicks_5": Clicks(5),
    "boxes": Boxes(),
    "everything": Everything(),
    "everything_transformers": TRANSFORMERS,
    "all_masks": AllMasks(),
    **video_protocols.PRESETS,
}
"""Protocols by their ids: the usual 20 clicks of interactive segmentation, as many as validation takes, boxes, what is
found where nobody asks, as segment-anything, as transformers' pipeline and as a network itself finds it, and those of
clips."""
