"""Clicks and boxes against the whole loop written out, one object after the other."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.ndimage import distance_transform_edt
from torch.nn.functional import interpolate

from segfolio.data.batches import collate
from segfolio.data.formats import rle
from segfolio.data.prompts import PADDING
from segfolio.data.sample import Batch, Prediction, Sample, Target, to_image
from segfolio.data.segments import Segments
from segfolio.errors import SegfolioError
from segfolio.inference.prompt_protocols import Boxes, Clicks, OfObjects, find
from segfolio.layers.prompting import PromptInput
from tests.inference.prompted import Asking, Discs
from tests.inference.test_clicks import blobs

SIZES = [(60, 80), (96, 50), (40, 40)]


def sample(seed: int, size: tuple[int, int]) -> Sample:
    """Blobs that overlap, one without a pixel and a crowd among them."""
    rng = np.random.default_rng(seed)
    masks = np.zeros((6, *size), np.bool_)
    for n, mask in enumerate(masks[:5]):
        blob = blobs(100 * seed + n)
        height, width = (min(a, b) for a, b in zip(blob.shape, size, strict=True))
        top, left = (int(rng.integers(a - b + 1)) for a, b in zip(size, (height, width), strict=True))
        mask[top : top + height, left : left + width] = blob[:height, :width]
    labels, crowd = torch.zeros(6).long(), torch.arange(6) == 3
    target = Target(segments=Segments(rle.encode(masks), labels, crowd, size), number=seed)
    image = to_image(rng.integers(0, 256, (*size, 3), dtype=np.uint8))
    return Sample(image, f"image_{seed}", size, target)


def batch() -> Batch:
    return collate([[sample(seed, size)] for seed, size in enumerate(SIZES)], padded=True)


def answers(protocol: OfObjects, given: Batch, family: Any = None) -> list[Prediction]:
    with torch.no_grad():
        return protocol.answer(family or Asking(), given)


def enlarged(logits: torch.Tensor, size: tuple[int, int]) -> np.ndarray:
    """`[M, h, w]` at an image's size, as masks."""
    height, width = Discs().fit(*size)
    square = interpolate(logits[None], (64, 64), mode="bilinear")[..., :height, :width]
    return (interpolate(square, size, mode="bilinear")[0] > 0).numpy()


def seen(points: list[tuple[int, int]], size: tuple[int, int]) -> torch.Tensor:
    """Rows and columns of pixels where the network sees them."""
    height, width = Discs().fit(*size)
    scale = torch.tensor([width / size[1], height / size[0]], dtype=torch.float32)
    return torch.tensor([[column, row] for row, column in points]) * scale + 0.5


@torch.no_grad()
def written_out(whole: Sample, truth: np.ndarray, rounds: int) -> dict[str, list[Any]]:
    """Masks, clicks and kinds of one object, and its candidates, by scipy's distances and numpy."""
    size, network = truth.shape, Discs()
    embedded = Asking(network).embedded(whole.image[None].as_subclass(torch.Tensor), [whole.original_size])
    found: dict[str, list[Any]] = {"masks": [], "points": [], "kinds": [], "candidates": [], "iou": []}
    shown, logits = np.zeros_like(truth), None
    for turn in range(rounds):
        wrong = [truth & ~shown, shown & ~truth]
        deep = [distance_transform_edt(np.pad(region, 1).astype(np.float64))[1:-1, 1:-1] for region in wrong]
        if not any(each.any() for each in wrong):
            found["masks"].append(shown)
            found["iou"].append(found["iou"][-1])
            continue
        kind = int(deep[0].max() > deep[1].max())
        found["points"].append(divmod(int(deep[1 - kind].argmax()), size[1]))
        found["kinds"].append(kind)
        prompts = PromptInput(
            torch.zeros(1).long(), seen(found["points"], size)[None], torch.tensor([found["kinds"]]), None, logits
        )
        answer = network.decode(embedded.embedding, prompts, multimask=turn == 0)
        best = int(answer.iou[0].argmax())
        masks, logits = enlarged(answer.masks[0], size), answer.masks[:, best]
        shown = masks[best]
        found["masks"].append(shown)
        found["iou"].append(float(answer.iou[0, best]))
        if turn == 0:
            found["candidates"] = list(masks)
    return found


@pytest.mark.parametrize("prompts_per_pass", [1, 3, 64])
def test_clicks_are_those_of_the_loop_written_out(prompts_per_pass: int) -> None:
    rounds, given = 7, batch()
    changes = 0
    for prediction, (seed, size) in zip(
        answers(Clicks(rounds, prompts_per_pass=prompts_per_pass), given), enumerate(SIZES), strict=True
    ):
        whole, prompted = sample(seed, size), prediction.prompted
        assert prompted.of.tolist() == [0, 1, 2, 4]  # no crowd, nothing without a pixel
        for p, of in enumerate(prompted.of.tolist()):
            expected = written_out(whole, whole.target.segments.masks[of].numpy(), rounds)
            np.testing.assert_array_equal(rle.decode(prompted.rles[p], size), expected["masks"])
            np.testing.assert_array_equal(rle.decode(prompted.candidates[p], size), expected["candidates"])
            kinds = prompted.clicks.kinds[p]
            given_kinds = kinds[kinds != PADDING].tolist()
            assert given_kinds == expected["kinds"]
            places = [(row + 0.5, column + 0.5) for row, column in expected["points"]]
            assert prompted.clicks.points[p, : len(places)].flip(1).tolist() == [list(place) for place in places]
            torch.testing.assert_close(prompted.iou[p], torch.tensor(expected["iou"]), rtol=1e-5, atol=1e-5)
            changes += len({mask["counts"] for mask in prompted.rles[p]}) + len(set(given_kinds))
    assert changes > 50  # masks do change and both kinds of clicks occur


def test_an_image_is_embedded_once_and_all_objects_of_a_batch_are_asked_together() -> None:
    family = Asking()
    answers(Clicks(4), batch(), family)
    assert family.network.embedded == [3]
    assert [(len(prompts.image), prompts.kinds.shape[1], multimask) for prompts, multimask in family.network.asked] == [
        (12, 1, True),
        (12, 2, False),
        (12, 3, False),
        (12, 4, False),
    ]
    assert family.network.asked[0][0].masks is None
    assert family.network.asked[3][0].masks.shape == (12, 32, 32)


def test_there_is_one_copy_to_the_host_in_a_round(monkeypatch: pytest.MonkeyPatch) -> None:
    given, copies, to_host = batch(), [], torch.Tensor.cpu
    monkeypatch.setattr(torch.Tensor, "cpu", lambda self: copies.append(1) or to_host(self))
    answers(Clicks(4), given)
    assert len(copies) == 4 + 1  # and one that waits for the embedding


class Right(Discs):
    """Knows the object after two clicks."""

    truth: torch.Tensor

    def read(self, embedding: Any, prompts: PromptInput, multimask: bool = True) -> Any:
        found = super().read(embedding, prompts, multimask)
        right = prompts.kinds.shape[1] >= 2
        return found._replace(state=(2.0 * self.truth.expand(len(prompts.image), 1, -1, -1) - 1,)) if right else found


def test_a_mask_that_is_right_is_asked_for_no_more() -> None:
    size = (64, 64)
    cells = torch.zeros(32, 32).bool()
    cells[8:20, 10:22] = True
    network = Right()
    network.truth = cells
    truth = torch.from_numpy(enlarged(2.0 * cells[None] - 1, size))
    target = Target(segments=Segments(truth, torch.zeros(1).long(), torch.zeros(1).bool()))
    given = collate([[Sample(to_image(np.zeros((*size, 3), np.uint8)), "one", size, target)]])
    (prediction,) = answers(Clicks(5), given, Asking(network))
    prompted = prediction.prompted
    assert len(network.asked) == 2
    assert prompted.rles[0][1:] == target.segments.rles * 4
    assert prompted.rles[0][0] != prompted.rles[0][1]
    assert prompted.clicks.kinds[0, 2:].tolist() == [PADDING] * 3


def test_a_window_is_asked_as_an_image_of_its_own_would_be() -> None:
    """Embedded once though it holds two objects, and no window is embedded in which there is none."""
    size, window = (100, 140), 64
    masks = torch.zeros(3, *size).bool()
    masks[0, 5:30, 10:40] = masks[1, 34:60, 40:70] = masks[2, 2:12, 3:9] = True
    image = to_image(np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8))
    segments = Segments(masks, torch.zeros(3).long(), torch.zeros(3).bool())
    family = Asking()
    (found,) = answers(
        Clicks(3, window=window), collate([[Sample(image, "a", size, Target(segments=segments))]]), family
    )
    assert family.network.embedded == [2]
    corners = [(0, 0), (0, 32)]
    for top, left in corners:
        inside = (slice(None), slice(top, top + window), slice(left, left + window))
        here = [p for p in range(3) if {0: (0, 0), 1: (0, 32), 2: (0, 0)}[p] == (top, left)]
        cut = Segments(masks[here][inside], torch.zeros(len(here)).long(), torch.zeros(len(here)).bool())
        crop = Sample(type(image)(image[inside]), "b", (window, window), Target(segments=cut))
        (alone,) = answers(Clicks(3), collate([[crop]]))
        for p, q in zip(here, range(len(here)), strict=True):
            whole = rle.decode(found.prompted.rles[p], size)
            np.testing.assert_array_equal(whole[inside], rle.decode(alone.prompted.rles[q], (window, window)))
            assert whole.sum() == whole[inside].sum()
            shift = torch.tensor([left, top])
            assert torch.equal(found.prompted.clicks.points[p] - shift, alone.prompted.clicks.points[q])


def test_boxes_are_answered_by_one_mask() -> None:
    family, given = Asking(), batch()
    for prediction, size in zip(answers(Boxes(prompts_per_pass=5), given, family), SIZES, strict=True):
        assert all(len(masks) == 1 and tuple(masks[0]["size"]) == size for masks in prediction.prompted.rles)
    assert [multimask for _, multimask in family.network.asked] == [False] * 3
    (first, _), mask = family.network.asked[0], given.targets[0].segments.masks[0]
    rows, columns = (mask.any(d).nonzero() for d in (1, 0))
    corners = torch.tensor([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
    height, width = Discs().fit(*SIZES[0])
    scale = torch.tensor([width / SIZES[0][1], height / SIZES[0][0]]).repeat(2)
    torch.testing.assert_close(first.boxes[0], corners * scale)


@pytest.mark.parametrize("protocol", [Clicks(3), Boxes()])
def test_masks_have_the_original_size_of_an_image_that_was_resized(protocol: OfObjects) -> None:
    """And clicks are in its pixels: what the network sees, and so the answer, is nearly the same."""
    whole = sample(0, (96, 96))
    small = replace(whole, image=type(whole.image)(whole.image[:, ::2, ::2].contiguous()))
    (found,), (expected,) = (answers(protocol, collate([[each]])) for each in (small, whole))
    assert tuple(found.prompted.rles[0][0]["size"]) == (96, 96)
    if isinstance(protocol, Clicks):
        assert torch.equal(found.prompted.clicks.points[:, 0], expected.prompted.clicks.points[:, 0])
    with pytest.raises(SegfolioError, match=r"image_0 is resized before it is tested in windows of 64 pixels; leave"):
        answers(Clicks(3, window=64), collate([[small]]))


def test_an_image_without_an_object_has_no_answer_and_one_without_segments_is_refused() -> None:
    empty = replace(
        sample(0, (60, 80)), target=Target(segments=Segments([], *torch.zeros(2, 0).long().unbind(), (60, 80)))
    )
    (found,) = answers(Clicks(3), collate([[empty]]))
    assert (found.prompted.rles, found.prompted.iou.shape) == ([], (0, 3))
    with pytest.raises(SegfolioError, match=r"image_0 has no objects but a semantic map alone.*instances: true"):
        answers(Boxes(), collate([[replace(empty, target=Target())]]))


@pytest.mark.parametrize("arguments", [{"clicks": 0}, {"window": 0}, {"prompts_per_pass": 0}])
def test_numbers_below_one_are_refused(arguments: dict[str, int]) -> None:
    with pytest.raises(SegfolioError, match=f"Clicks: {next(iter(arguments))} is 0; give at least 1"):
        Clicks(**arguments)


def test_a_preset_is_known_by_its_id_and_an_unknown_one_names_the_known() -> None:
    assert (find("clicks").rounds, find("clicks_5").rounds) == (20, 5)
    with pytest.raises(SegfolioError, match=r"no protocol 'click' of prompts; the presets are clicks, clicks_5, boxes"):
        find("click")
    assert (find("everything").like, find("everything_transformers").like) == ("segment_anything", "transformers")
