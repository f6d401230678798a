"""How a promptable network is trained: it is asked, corrected where it was wrong, and asked again."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from segfolio.data.prompt_sampling import FirstPrompt
from segfolio.data.prompts import NOT_OBJECT, OBJECT, PADDING, Prompts, join
from segfolio.data.sample import Batch, Extra
from segfolio.data.segments import Segments
from segfolio.inference.prompting import EmbeddedImages
from segfolio.layers.prompting import Reading
from segfolio.losses.promptable import Enlarge, PromptLoss


def losses_of_rounds(
    images: EmbeddedImages, batch: Batch, first: FirstPrompt, criterion: PromptLoss, recompute: bool = False
) -> dict[str, Tensor]:
    """The mean over the rounds of the losses of a batch that `PromptSampling` has made.

    The first prompt is answered by several masks where it is ambiguous, all others by one. Where nothing is wrong with
    an answer, there is no click.

    Args:
        images: of the batch.
        first: what the first prompt of every object is.
        recompute: the answers in the backward pass, instead of keeping all that led to them.

    Returns:
        {} if no image has an object.
    """
    prompts, image = join(batch.prompts)
    if not len(prompts):
        return {}
    truths = [masks_of(target.segments) for target in batch.targets]
    places = of_objects(batch.extras["clicks"], truths)
    asked = replace(prompts, boxes=None) if first.kind == "point" else Prompts(prompts.of, boxes=prompts.boxes)

    def ask(asked: Prompts, previous: Tensor | None) -> Answer:
        reading = images.read(asked, image, previous, multimask=first.ambiguous and previous is None)
        return reading, images.network.draw(reading)

    rounds, _ = in_rounds(ask, asked, Clicks(places), truths, criterion, images.enlarge, recompute)
    return {name: torch.stack([losses[name] for losses in rounds]).mean() for name in rounds[0]}


Answer = tuple[Reading, Tensor]
"""And its masks, `[P, M, h, w]`."""


class Clicks(NamedTuple):
    """Where a simulated user clicks after each of K rounds.

    Attributes:
        places: `[P, K]`, in the error region, see `click_at_error`.
        of_truth: `[P, K]` bool, of the object and not of the error region; None if none is.
        beside: where there is no such place, the click is beside the object.
    """

    places: Tensor
    of_truth: Tensor | None = None
    beside: bool = False


def in_rounds(
    ask: Callable[[Prompts, Tensor | None], Answer],
    asked: Prompts,
    clicks: Clicks,
    truths: Sequence[Tensor],
    criterion: PromptLoss,
    enlarge: Enlarge,
    recompute: bool = False,
) -> tuple[list[dict[str, Tensor]], Answer]:
    """Ask, and ask again after each click. The network then has the logits of its best answer so far, as it thinks
    itself, through which no gradient flows.

    Args:
        ask: with prompts and those logits `[P, h, w]`, the first time None.
        asked: the first prompts.
        truths: of each image, the masks of its prompts, `[P_i, H, W]` bool.
        recompute: see `losses_of_rounds`.

    Returns:
        the losses of each of K + 1 rounds, and the last answer.
    """
    previous, rounds = None, list[dict[str, Tensor]]()
    for k in range(clicks.places.shape[1] + 1):
        answer = checkpoint(ask, asked, previous, use_reentrant=False) if recompute else ask(asked, previous)
        (iou, score, _), masks = answer
        shown = iou.detach().argmax(1)
        losses, seen = criterion(masks, iou, score, truths, enlarge, shown)
        rounds.append(losses)
        if k == clicks.places.shape[1]:
            break
        previous = masks.detach()[torch.arange(len(shown), device=shown.device), shown]
        counts = [len(truth) for truth in truths]
        if clicks.of_truth is not None:
            parts = clicks.of_truth[:, k, None, None].split(counts)
            seen = [mask & ~part for mask, part in zip(seen, parts, strict=True)]
        each = zip(seen, truths, clicks.places[:, k].split(counts), strict=True)
        found = [click_at_error(*some, clicks.beside) for some in each]
        asked = _with_clicks(asked, *map(torch.cat, zip(*found, strict=True)))
    return rounds, answer


def click_at_error(seen: Tensor, truth: Tensor, place: Tensor, beside: bool = False) -> tuple[Tensor, Tensor]:
    """A click where masks `[P, H, W]` differ from their truth: points `[P, 2]` and kinds `[P]`, on an object that was
    missed or beside one that is not there. `PADDING` where no place is given, or nothing differs.

    Args:
        place: `[P]`, the place in the error region, read line by line, from 0 to 1; -1 for none.
        beside: where nothing differs, the click is anywhere beside the object.
    """
    wrong = seen != truth
    if beside:
        wrong = torch.where(wrong.flatten(1).any(1)[:, None, None], wrong, ~truth)
    until = wrong.sum(2).cumsum(1)  # and the row before
    count = until[:, -1]
    which = (place * count).long().clamp(max=count - 1).clamp_min(0)[:, None]
    y = torch.searchsorted(until, which, right=True).clamp(max=wrong.shape[1] - 1)
    before = until.gather(1, y) - wrong.sum(2).gather(1, y)
    row = wrong.gather(1, y[..., None].expand(-1, -1, wrong.shape[2]))[:, 0].cumsum(1)
    x = torch.searchsorted(row, which - before, right=True).clamp(max=wrong.shape[2] - 1)
    missed = truth.flatten(1).gather(1, y * wrong.shape[2] + x)[:, 0]
    kinds = torch.where((count > 0) & (place >= 0), torch.where(missed, OBJECT, NOT_OBJECT), PADDING)
    return torch.cat([x, y], 1) + 0.5, kinds


def _with_clicks(prompts: Prompts, points: Tensor, kinds: Tensor) -> Prompts:
    """One more point for each."""
    points, kinds = points[:, None], kinds[:, None]
    if prompts.points is not None and prompts.kinds is not None:
        points, kinds = torch.cat([prompts.points, points], 1), torch.cat([prompts.kinds, kinds], 1)
    return replace(prompts, points=points, kinds=kinds)


def masks_of(segments: Segments | None) -> Tensor:
    assert segments is not None
    return segments.masks.as_subclass(Tensor)


def of_objects(drawn: Extra, truths: Sequence[Tensor]) -> Tensor:
    """What was drawn for as many objects as an image may have, `[B, N, ...]`, of those that there are, `[P, ...]`."""
    return torch.cat([of[: len(truth)] for of, truth in zip(drawn, truths, strict=True)])


def with_all(losses: Mapping[str, Tensor], network: nn.Module, names: Sequence[str]) -> dict[str, Tensor]:
    """The losses, 0 of `names` where there are none, which all depend on every parameter that is trained: whatever was
    asked, none is unused, for whose gradient other processes would wait."""
    parameters = [p.flatten()[0].float() for p in network.parameters() if p.requires_grad]
    nothing = 0 * torch.stack(parameters).sum()
    return {name: losses.get(name, 0) + nothing for name in losses or names}
