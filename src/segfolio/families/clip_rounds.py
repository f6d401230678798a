"""How a network that follows objects is trained: prompted in some frames of a clip, corrected, and followed through the
others by what it remembers (SAM 2, arXiv 2408.00714, section 5 and appendix D.2)."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate

import torch
from torch import Tensor

from segfolio.data.clip_prompts import ClipPlan, ClipPrompts, Kind
from segfolio.data.prompts import NO_POINT, PADDING, Prompts, join
from segfolio.data.sample import Batch
from segfolio.families.prompt_rounds import Answer, Clicks, in_rounds, masks_of, of_objects
from segfolio.inference.prompting import EmbeddedImages
from segfolio.inference.track import AMBIGUOUS
from segfolio.layers.prompting import PromptInput, of_images
from segfolio.layers.tracking import Memory, Recalled, TrackingNetwork
from segfolio.losses.promptable import PromptLoss


def losses_of_clips(
    images: EmbeddedImages,
    batch: Batch,
    prompts: ClipPrompts,
    draw: tuple[int, int],
    criterion: PromptLoss,
    recompute: bool = False,
) -> dict[str, Tensor]:
    """The sum over frames and rounds of the losses of a batch that `prompts` has made, a mean over its clips.

    Args:
        images: the frames of all clips.
        draw: the seed of the data and the optimiser step, for the plan.
        recompute: the answers in the backward pass, instead of keeping all that led to them.

    Returns:
        {} if no clip has an object.
    """
    starts = [0, *accumulate(batch.clips)]
    alike = defaultdict[int, list[int]](list)
    for start, frames in zip(starts, batch.clips, strict=False):
        alike[frames].append(start)
    total: dict[str, Tensor] = {}
    for frames, some in alike.items():
        clips = Clips(images, batch, some, frames, criterion, recompute)
        for name, loss in clips.losses(prompts.plan(*draw, frames)).items():
            part = len(some) / len(batch.clips) * loss
            total[name] = total[name] + part if name in total else part
    return total


class Clips:
    """Clips of T frames each, whose P objects are followed in one batch, with all that leads to the last frame kept for
    the backward pass.

    It follows facebookresearch/sam2, `training/model/sam2.py`. Deviates: the masks that are compared with the truth are
    those that are drawn, also where the network thinks that the object is not there (the release compares masks of
    -1024 then, from which nothing is learned), and are given back so with a click, as a number through which no
    gradient flows; a mask that is given is remembered at the size of the network's own, enlarged; of an object that is
    not in a frame a point beside it is said, also where the others' boxes are; and which clicks are drawn from the
    truth is drawn for each object.

    Args:
        starts: where each clip begins in the batch.
        frames: T.
    """

    def __init__(
        self,
        images: EmbeddedImages,
        batch: Batch,
        starts: Sequence[int],
        frames: int,
        criterion: PromptLoss,
        recompute: bool = False,
    ) -> None:
        assert isinstance(images.network, TrackingNetwork)
        self.network, self.images, self.batch = images.network, images, batch
        self.starts, self.frames, self.criterion, self.recompute = starts, frames, criterion, recompute
        self._prompted: dict[int, Memory] = {}
        self._passed: dict[int, Memory] = {}

    def losses(self, plan: ClipPlan) -> dict[str, Tensor]:
        """The sum of all frames and rounds, a mean over the clips."""
        if not any(len(self.batch.prompts[start]) for start in self.starts):
            return {}
        rounds = list[dict[str, Tensor]]()
        for frame in (*plan.first, *(frame for frame in range(self.frames) if frame not in plan.first)):
            rounds += self._frame(frame, plan.first.get(frame), frame in plan.corrected)
        return {name: torch.stack([losses[name] for losses in rounds]).sum() for name in rounds[0]}

    def _frame(self, frame: int, kind: Kind | None, corrected: bool) -> list[dict[str, Tensor]]:
        """The losses of its rounds; none of a frame whose masks are given."""
        places = [start + frame for start in self.starts]
        prompts, clip = join([self.batch.prompts[place] for place in places])
        truths = [masks_of(self.batch.targets[place].segments) for place in places]
        embedding = of_images(self.images.embedding, torch.tensor(places, device=clip.device))
        rounds = list[dict[str, Tensor]]()
        if kind == "mask":
            squares = [self.images.squares(t, place) for t, place in zip(truths, places, strict=True) if len(t)]
            found = self.network.take(embedding, torch.cat(squares), clip)
        else:
            recalled = None if kind else self._recalled(frame, len(clip))
            known = self.network.attend(of_images(embedding, clip), recalled)
            own, image = torch.arange(len(clip), device=clip.device), torch.tensor(places, device=clip.device)[clip]

            def ask(asked: Prompts, previous: Tensor | None) -> Answer:
                given = self.images.of_network(asked, image, previous)
                ambiguous = given.points.shape[1] + 2 * (given.boxes is not None) <= AMBIGUOUS
                reading = self.network.answer(known, _said(given, own), ambiguous)
                return reading, self.network.draw(reading)

            def enlarge(masks: Tensor, which: int) -> Tensor:
                return self.images.enlarge(masks, places[which])

            clicks = self._clicks(places, truths, corrected)
            rounds, answer = in_rounds(
                ask, _first(prompts, kind), clicks, truths, self.criterion, enlarge, self.recompute
            )
            found = self.network.sight(*answer)
        said = kind is not None or corrected
        memory = self.network.remember(embedding, found, clip, torch.full_like(clip, said, dtype=torch.bool))
        (self._prompted if said else self._passed)[frame] = memory
        return rounds

    def _clicks(self, places: Sequence[int], truths: Sequence[Tensor], corrected: bool) -> Clicks:
        extras = self.batch.extras
        rounds = None if corrected else 0
        clicks, of_truth = (
            of_objects([extras[name][place] for place in places], truths)[:, :rounds] for name in ("clicks", "of_truth")
        )
        return Clicks(clicks, of_truth, beside=True)

    def _recalled(self, frame: int, objects: int) -> Recalled:
        """All objects have been seen in the same frames."""
        reach = min(self.network.pointer_frames, self.frames - 1)
        passed = [(age, self._passed[frame - age]) for age in range(1, reach + 1) if frame - age in self._passed]
        near = [(age, memory) for age, memory in passed if age <= self.network.memory_frames]
        features = [memory.features for memory in (*self._prompted.values(), *(memory for _, memory in near))]
        pointers = [memory.pointer for memory in (*self._prompted.values(), *(memory for _, memory in passed))]
        ages = [*(0 for _ in self._prompted), *(age for age, _ in near)]
        distances = [*(float(frame - at) for at in self._prompted), *(float(age) for age, _ in passed)]
        device = features[0].device
        return Recalled(
            torch.stack(features, 1),
            torch.tensor(ages, device=device).expand(objects, -1),
            torch.stack(pointers, 1),
            torch.tensor(distances, device=device).expand(objects, -1),
            max(reach, 1),
        )


def _first(prompts: Prompts, kind: Kind | None) -> Prompts:
    """What is said first: nothing, a point of each object, or its box, and a point beside one that is not there."""
    if prompts.boxes is None or kind is None:
        return Prompts(prompts.of)
    if kind == "point":
        return replace(prompts, boxes=None)
    assert prompts.kinds is not None
    nowhere = prompts.boxes.isnan().any(1)
    if not nowhere.any():
        return Prompts(prompts.of, boxes=prompts.boxes)
    return replace(prompts, kinds=prompts.kinds.where(nowhere[:, None], PADDING))


def _said(given: PromptInput, own: Tensor) -> PromptInput:
    """Of embeddings of which each object has its own; "not a point" where nothing is said at all."""
    if given.points.shape[1] or given.boxes is not None:
        return given._replace(image=own)
    nowhere = given.points.new_zeros(len(own), 1, 2)
    return given._replace(image=own, points=nowhere, kinds=torch.full_like(own, NO_POINT)[:, None])
