"""How a promptable network is trained: it is asked, corrected where it was wrong, and asked again."""

from dataclasses import replace

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from segfolio.data.prompt_sampling import FirstPrompt
from segfolio.data.prompts import NOT_OBJECT, OBJECT, PADDING, Prompts, join
from segfolio.data.sample import Batch
from segfolio.data.segments import Segments
from segfolio.inference.prompting import EmbeddedImages
from segfolio.layers.prompting import PromptedMasks
from segfolio.losses.promptable import PromptLoss


def losses_of_rounds(
    images: EmbeddedImages, batch: Batch, first: FirstPrompt, criterion: PromptLoss, recompute: bool = False
) -> dict[str, Tensor]:
    """The mean over the rounds of the losses of a batch that `PromptSampling` has made.

    The first prompt is answered by several masks where it is ambiguous, all others by one. In each later round the
    network has the logits of its best answer so far, as it thinks itself, through which no gradient flows, and as a
    rule one click more, from where that answer is wrong. Where nothing is, there is no click.

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
    truths = [_masks(target.segments) for target in batch.targets]
    draws = batch.extras["clicks"]
    places = torch.cat([of[: len(truth)] for of, truth in zip(draws, truths, strict=True)])
    asked = replace(prompts, boxes=None) if first.kind == "point" else Prompts(prompts.of, boxes=prompts.boxes)

    def ask(asked: Prompts, previous: Tensor | None) -> PromptedMasks:
        return images.ask(asked, image, previous, multimask=first.ambiguous and previous is None)

    previous, rounds = None, list[dict[str, Tensor]]()
    for place in (*places.unbind(1), None):
        answers = checkpoint(ask, asked, previous, use_reentrant=False) if recompute else ask(asked, previous)
        shown = answers.iou.detach().argmax(1)
        losses, seen = criterion(*answers, truths, images.enlarge, shown)
        rounds.append(losses)
        if place is not None:
            previous = answers.masks.detach()[torch.arange(len(shown), device=shown.device), shown]
            counts = [len(truth) for truth in truths]
            clicks = map(click_at_error, seen, truths, place.split(counts))
            asked = _with_clicks(asked, *map(torch.cat, zip(*clicks, strict=True)))
    return {name: torch.stack([losses[name] for losses in rounds]).mean() for name in rounds[0]}


def click_at_error(seen: Tensor, truth: Tensor, place: Tensor) -> tuple[Tensor, Tensor]:
    """A click where masks `[P, H, W]` differ from their truth: points `[P, 2]` and kinds `[P]`, on an object that was
    missed or beside one that is not there. `PADDING` where nothing differs or no place is given.

    Args:
        place: `[P]`, the place in the error region, read line by line, from 0 to 1; -1 for none.
    """
    wrong = seen != truth
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


def _masks(segments: Segments | None) -> Tensor:
    assert segments is not None
    return segments.masks.as_subclass(Tensor)
