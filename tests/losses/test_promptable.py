"""The criterion of promptable segmentation, against the formulas written out in float64."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from segfolio.errors import SegfolioError
from segfolio.losses import promptable
from segfolio.losses.promptable import PromptLoss

SIZES = ((20, 24), (12, 16), (18, 10))


def enlarged(masks: Tensor, image: int) -> Tensor:
    return interpolate(masks[:, None], SIZES[image], mode="bilinear")[:, 0]


def given(counts: Sequence[int] = (3, 0, 2), masks: int = 3, seed: int = 0) -> dict[str, Any]:
    """Logits of 6 x 7 and truths of their images' sizes."""
    g = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(sum(counts), masks, 6, 7, generator=g)
    iou = torch.rand(sum(counts), masks, generator=g)
    return {
        "masks": logits.requires_grad_(),
        "iou": iou.requires_grad_(),
        "object_score": None,
        "truths": [torch.rand(n, *size, generator=g) < 0.4 for n, size in zip(counts, SIZES, strict=False)],
        "enlarge": enlarged,
        "shown": torch.randint(masks, (sum(counts),), generator=g),
    }


def written_out(
    masks: Tensor,
    iou: Tensor,
    object_score: Tensor | None,
    truths: Any,
    l1: bool = False,
    all_iou: bool = False,
    **_: Any,
) -> dict[str, Tensor]:
    """Prompt by prompt, mask by mask, in float64, with weights of 20, 1, 1 and 1."""
    sums = dict.fromkeys(("focal", "dice", "iou", "object_score"), torch.zeros((), dtype=torch.float64))
    prompt = 0
    for image, truth in enumerate(truths):
        for wanted in truth:
            t, candidates = wanted.double(), []
            for m in range(masks.shape[1]):
                x = enlarged(masks[prompt, m : m + 1].double(), image)[0]
                p = 1 / (1 + torch.exp(-x))
                right = t * p + (1 - t) * (1 - p)
                focal = (-(0.25 * t + 0.75 * (1 - t)) * (1 - right) ** 2 * torch.log(right)).mean()
                dice = 1 - (2 * (p * t).sum() + 1) / (p.sum() + t.sum() + 1)
                inside = x > 0
                overlap = (inside & wanted).sum() / max((inside | wanted).sum(), 1)
                off = iou[prompt, m].double() - overlap
                candidates.append((focal, dice, off.abs() if l1 else off**2))
            focal, dice, off = min(candidates, key=lambda c: (20 * c[0] + c[1]).item())
            if all_iou:
                off = sum(c[2] for c in candidates) / len(candidates)
            there, weight = float(wanted.any()), 1 / (len(truth) * len(truths))
            for name, value in (("focal", 20 * focal), ("dice", dice), ("iou", off)):
                sums[name] = sums[name] + weight * there * value
            if object_score is not None:
                score = object_score[prompt].double()
                sums["object_score"] = sums["object_score"] + weight * (torch.log1p(torch.exp(score)) - there * score)
            prompt += 1
    return sums if object_score is not None else {k: v for k, v in sums.items() if k != "object_score"}


def gradients(losses: dict[str, Tensor], inputs: dict[str, Any]) -> list[Tensor]:
    wanted = [inputs[name] for name in ("masks", "iou", "object_score") if inputs[name] is not None]
    return list(torch.autograd.grad(sum(losses.values()), wanted))


@pytest.mark.parametrize("chunk", [1, 4_000_000])
@pytest.mark.parametrize("masks", [1, 3])
@pytest.mark.parametrize("variant", ["sam", "sam2"])
def test_losses_and_gradients_equal_the_formulas(
    variant: str, masks: int, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(promptable, "_CHUNK", chunk)
    inputs = given(masks=masks)
    if variant == "sam2":
        inputs["object_score"] = torch.randn(5, generator=torch.Generator().manual_seed(1)).requires_grad_()
        inputs["truths"][0][1] = False
    criterion = PromptLoss() if variant == "sam" else PromptLoss(iou_loss="l1", supervise_all_iou=True)
    found, _ = criterion(**inputs)
    expected = written_out(**inputs, l1=variant == "sam2", all_iou=variant == "sam2")
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].item() == pytest.approx(value.item(), rel=1e-6), name
    for ours, theirs in zip(gradients(found, inputs), gradients(expected, inputs), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-8)


def test_only_the_best_of_three_masks_learns() -> None:
    inputs = given((1,))
    inputs["truths"][0][:] = torch.arange(24) < 12
    for m, factor in enumerate((-4.0, 4.0, 0.0)):
        signs = 2 * interpolate(inputs["truths"][0][:, None].float(), (6, 7))[0, 0] - 1
        inputs["masks"].data[0, m] = factor * signs
    losses, _ = PromptLoss()(**inputs)
    masks, iou = gradients(losses, inputs)
    assert masks[0].abs().amax((1, 2)).gt(0).tolist() == [False, True, False]
    assert iou[0].ne(0).tolist() == [False, True, False]


def test_the_mask_that_is_asked_for_is_seen_at_the_images_size() -> None:
    inputs = given()
    _, seen = PromptLoss()(**inputs)
    assert [tuple(s.shape) for s in seen] == [(3, 20, 24), (0, 12, 16), (2, 18, 10)]
    for i, prompt in ((0, 1), (2, 4)):
        wanted = enlarged(inputs["masks"][prompt, inputs["shown"][prompt]][None], i) > 0
        assert torch.equal(seen[i][prompt - 3 * (i == 2)], wanted[0])


def test_an_image_counts_as_much_as_another_whatever_it_is_batched_with() -> None:
    """The mean of two batches of one image is the batch of both, also where one has no object."""
    inputs = given((3, 0))
    whole, _ = PromptLoss()(**inputs)
    first, _ = PromptLoss()(**{**inputs, "truths": inputs["truths"][:1]})
    for name, value in whole.items():
        assert 2 * value.item() == pytest.approx(first[name].item(), rel=1e-6)


def test_it_is_float32_whatever_the_masks_are() -> None:
    inputs = given()
    half = {**inputs, "masks": inputs["masks"].bfloat16(), "iou": inputs["iou"].bfloat16()}
    rounded = {**inputs, "masks": half["masks"].float(), "iou": half["iou"].float()}
    with torch.autocast("cpu", torch.bfloat16):
        found, _ = PromptLoss()(**half)
    expected, _ = PromptLoss()(**rounded)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_a_negative_weight_is_refused() -> None:
    with pytest.raises(SegfolioError, match="dice of PromptLoss is -1, expected 0 or more"):
        PromptLoss(dice=-1)


def test_no_enlarged_mask_is_kept_for_the_backward_pass() -> None:
    inputs, kept = given((4,)), list[int]()

    def keep(x: Tensor) -> Tensor:
        if x.is_floating_point():
            kept.append(x.numel())
        return x

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        losses, _ = PromptLoss()(**inputs)
    assert gradients(losses, inputs)[0].ne(0).any()
    assert max(kept) < 4 * 20 * 24  # a mask of each prompt
    assert kept
