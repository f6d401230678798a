"""FastSAM: what prompts choose of masks made by hand, and that it is the detector that it is trained as."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from segfolio.architectures.one_stage.yolo_seg import YOLOSeg
from segfolio.architectures.promptable.fast_sam import NOTHING, FastSAM
from segfolio.data.formats import rle
from segfolio.errors import SegfolioError
from segfolio.inference.paste_masks import instances
from segfolio.inference.prompting import EmbeddedImages
from segfolio.layers.detection import DetectionTarget
from segfolio.layers.hollow import hollow
from segfolio.layers.prompting import Embedding, PromptInput
from tests.architectures.promptable.prompts import find_several
from tests.architectures.test_detection_contract import scene

WHOLE, PART, OTHER = (8.0, 8.0, 88.0, 72.0), (20.0, 16.0, 52.0, 40.0), (70.0, 50.0, 120.0, 110.0)
SCORES = (0.9, 0.7, 0.5)
"""Of the whole, of its part, and of another that overlaps the whole; the fourth place is empty."""


def network(**arguments: Any) -> FastSAM:
    torch.manual_seed(0)
    return FastSAM(1, **{**FastSAM.tiny, "max_masks": 4, **arguments}).eval()


def rectangles(*boxes: tuple[float, float, float, float], scores: tuple[float, ...] = SCORES) -> Embedding:
    """Masks that reach beyond their boxes on all sides: of each a map of its own."""
    maps, factors = torch.full((1, 32, 32, 32), -5.0), torch.zeros(1, 4, 32)
    for place, (left, top, right, bottom) in enumerate(boxes):
        rows, columns = (slice(int(a / 4 - 1), int(b / 4 + 1)) for a, b in ((top, bottom), (left, right)))
        maps[0, place, rows, columns] = 5
        factors[0, place, place] = 1
    empty = 4 - len(boxes)
    found = torch.tensor([*boxes, *[(0.0, 0, 0, 0)] * empty])[None]
    return maps, factors, found, torch.tensor([*scores[: len(boxes)], *[0.0] * empty])[None]


def asked(*points: tuple[float, float, int], box: Any = None, mask: Tensor | None = None) -> PromptInput:
    places = torch.tensor([point[:2] for point in points]).reshape(1, -1, 2).float()
    kinds = torch.tensor([point[2] for point in points]).reshape(1, -1).long()
    boxes = None if box is None else torch.tensor([box]).float()
    return PromptInput(torch.zeros(1).long(), places, kinds, boxes, None if mask is None else mask[None])


def pixels(masks: Tensor) -> Tensor:
    """At the size of the square, bool."""
    return torch.nn.functional.interpolate(masks, (128, 128), mode="bilinear") > 0


def inside(*boxes: tuple[float, float, float, float]) -> Tensor:
    mask = torch.zeros(128, 128, dtype=torch.bool)
    for left, top, right, bottom in boxes:
        mask[int(top) : int(bottom), int(left) : int(right)] = True
    return mask


def same(mask: Tensor, *boxes: tuple[float, float, float, float]) -> bool:
    """But for three pixels in each corner, which are round between the cells."""
    return int((mask ^ inside(*boxes)).sum()) <= 12 * len(boxes)


NESTED = rectangles(WHOLE, PART, OTHER)


@pytest.mark.parametrize(
    ("prompts", "boxes", "score"),
    [
        (asked((30, 30, 1)), [WHOLE, PART], 0.9),
        (asked((60, 30, 1)), [WHOLE], 0.9),
        (asked((30, 30, 1), (60, 30, 0)), [PART], 0.7),
        (asked((30, 30, 1), (100, 100, 1), (60, 30, 0)), [PART, OTHER], 0.7),
        (asked((80, 60, 1)), [WHOLE, OTHER], 0.9),
        (asked((80, 60, 1), (100, 100, 0)), [WHOLE], 0.9),
        (asked((2, 2, 1)), [], 0.0),
        (asked(box=(22, 16, 50, 44)), [PART], 0.7),
        (asked(box=(10, 10, 90, 70)), [WHOLE], 0.9),
        (asked((60, 30, 0), box=(10, 10, 90, 70)), [PART], 0.7),
        (asked(mask=torch.where(inside(OTHER)[::4, ::4], 4.0, -4.0)), [OTHER], 0.5),
        (asked((30, 30, 1), mask=torch.where(inside(OTHER)[::4, ::4], 4.0, -4.0)), [WHOLE, PART], 0.9),
        (asked(), [], 0.0),
    ],
)
def test_one_mask_is_what_is_chosen_merged(prompts: PromptInput, boxes: Any, score: float) -> None:
    answer = network().decode(NESTED, prompts, multimask=False)
    assert same(pixels(answer.masks)[0, 0], *boxes)
    assert answer.iou.tolist() == [[pytest.approx(score)]]
    assert answer.object_score is None


def test_an_ambiguous_point_is_answered_by_each_mask_in_which_it_lies() -> None:
    answer = network().decode(NESTED, asked((30, 30, 1)), multimask=True)
    assert answer.iou.tolist() == [[pytest.approx(0.9), pytest.approx(0.7), 0.0]]
    for mask, box in zip(pixels(answer.masks)[0], ([WHOLE], [PART], []), strict=True):
        assert same(mask, *box)
    assert (answer.masks[0, 2] == NOTHING).all()


def test_everything_is_all_masks_without_those_that_there_are_not() -> None:
    found = network().all_masks(NESTED)
    assert found.iou.tolist() == [[*map(pytest.approx, SCORES), 0.0]]
    drawn = pixels(network().draw(found, found.iou > 0)[None])[0]
    assert all(same(mask, box) for mask, box in zip(drawn, (WHOLE, PART, OTHER), strict=True))


def test_words_choose_the_mask_that_is_most_like_them() -> None:
    """Three sentences: the part's; one that is like nothing; and one most like a mask that is not there."""
    likeness = torch.tensor([[0.2, 0.3, 0.1, 0.0], [0.0, -0.2, 0.0, 0.5], [0.1, 0.0, 0.2, 0.9]])
    fast = network()
    found = fast.most_like(NESTED, torch.zeros(3, dtype=torch.int64), likeness)
    assert found.iou[:, 0].tolist() == [pytest.approx(0.7), 0.0, pytest.approx(0.5)]
    assert all(
        same(mask[0], *boxes) for mask, boxes in zip(pixels(fast.draw(found)), ([PART], [], [OTHER]), strict=True)
    )


def test_words_are_compared_with_the_masks_that_everything_draws() -> None:
    """Of two images of which one has fewer masks: the word is "on the right"."""
    first, second = NESTED, rectangles(OTHER, scores=(0.6,))
    both = tuple(torch.cat(pair) for pair in zip(first, second, strict=True))
    fast = network()
    found = fast.all_masks(both)
    masks = pixels(fast.draw(found)).float()
    likeness = (masks * torch.arange(128)).sum((2, 3)) / masks.sum((2, 3)).clamp(min=1)
    answers = fast.most_like(both, torch.arange(2), likeness)
    assert [round(score, 3) for score in answers.iou[:, 0].tolist()] == [0.5, 0.6]
    for mask in pixels(fast.draw(answers)):
        assert same(mask[0], OTHER)


def test_masks_of_low_scores_are_found_in_everything_mode_and_answer_no_prompt() -> None:
    fast = network(prompt_score_threshold=0.6)
    assert fast.all_masks(NESTED).iou[0, 2] == SCORES[2]
    point = asked((100, 100, 1))
    assert network().decode(NESTED, point, multimask=False).iou.item() == SCORES[2]
    assert fast.decode(NESTED, point, multimask=False).iou.item() == 0


def test_a_mask_ends_at_its_box_between_the_cells_too() -> None:
    embedding = rectangles((9.0, 10.0, 87.0, 71.0))
    mask = network().decode(embedding, asked((30, 30, 1)), multimask=False).masks
    assert same(pixels(mask)[0, 0], (9, 10, 87, 71))
    assert torch.equal(pixels(mask)[0, 0, 14:66], inside((9, 10, 87, 71))[14:66])


def test_prompts_are_of_their_own_images() -> None:
    both = tuple(torch.cat(each) for each in zip(NESTED, rectangles(OTHER, scores=(0.3,)), strict=True))
    one = asked((100, 100, 1))
    prompts = PromptInput(torch.tensor([1, 0, 1]), one.points.expand(3, 1, 2), one.kinds.expand(3, 1))
    answer = network().decode(both, prompts, multimask=False)
    assert answer.iou[:, 0].tolist() == [pytest.approx(0.3), pytest.approx(0.5), pytest.approx(0.3)]
    assert all(same(mask, OTHER) for mask in pixels(answer.masks)[:, 0])


@torch.no_grad()
def test_what_it_finds_is_what_the_detector_finds() -> None:
    """In an image that fills the square, mask by mask."""
    fast = network(max_masks=12)
    find_several(fast.image_encoder)
    image = torch.randn(1, 3, 128, 128)
    (found,) = fast.image_encoder(image, [(128, 128)])
    theirs = instances(found, torch.zeros(1).long(), (128, 128), (128, 128))
    embedded = EmbeddedImages(fast, fast.embed(image), [(128, 128)])
    reading = fast.all_masks(embedded.embedding)
    torch.testing.assert_close(reading.iou[0], theirs.scores)
    ours = embedded.enlarge(fast.draw(reading)[0], 0) > 0
    truth = torch.from_numpy(rle.decode(theirs.rles, (128, 128)))
    assert truth.any((1, 2)).sum() > 3
    shared, either = (ours & truth).sum((1, 2)), (ours | truth).sum((1, 2))
    assert (shared / either.clamp(min=1))[either > 0].min() > 0.98  # but for the corners of boxes


def test_it_is_trained_as_the_detector() -> None:
    fast = network().train()
    truth = inside(PART)
    target = DetectionTarget(torch.tensor([PART]), torch.tensor([0]), truth[None])
    images, sizes = torch.randn(2, 3, 128, 128), [(128, 128)] * 2
    empty = DetectionTarget(torch.zeros(0, 4), torch.zeros(0).long(), torch.zeros(0, 128, 128, dtype=torch.bool))
    losses = fast.losses(images, sizes, [target, empty])
    again = fast.image_encoder(images, sizes, [target, empty])
    assert set(losses) == {"box", "cls", "dfl", "mask"}
    assert all(torch.equal(losses[name], again[name]) for name in losses)
    torch.stack(list(losses.values())).sum().backward()
    trained = {name: p.grad for name, p in fast.named_parameters() if p.requires_grad}
    assert [name for name, grad in trained.items() if grad is None] == []


def test_it_learns_to_answer_points() -> None:
    """Two rectangles of one image, told apart by a point in each."""
    images, wanted = scene()
    fast = network(score_threshold=0.3, max_masks=20).train()
    target = wanted._replace(labels=torch.zeros_like(wanted.labels))
    optimizer = torch.optim.Adam(fast.parameters(), lr=0.003)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.05, 100)
    for _ in range(100):
        optimizer.zero_grad()
        torch.stack(list(fast.losses(images, [(96, 128)], [target]).values())).sum().backward()
        optimizer.step()
        schedule.step()
    fast.eval()
    for module in fast.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.train()  # running statistics of a dozen cells are not those of the image
    middle = (wanted.boxes[:, None, :2] + wanted.boxes[:, None, 2:]) / 2
    prompts = PromptInput(torch.zeros(2).long(), middle, torch.ones(2, 1).long())
    with torch.no_grad():
        answer = fast(images, prompts, multimask=False)
    assert (answer.iou > 0.5).all()
    found = pixels(answer.masks)[:, 0, :96]
    assert wanted.masks is not None
    assert ((found & wanted.masks).sum((1, 2)) / (found | wanted.masks).sum((1, 2))).min() > 0.85


def test_parameters_are_those_of_the_detector_of_one_class() -> None:
    """Unfused, with the weights of the distances, of which there are 26."""
    counts = {}
    for name, arguments in FastSAM.variants.items():
        with hollow():
            counts[name] = sum(p.numel() for p in FastSAM(1, **arguments).parameters())
    assert counts == {"FastSAM-x": 72234149, "FastSAM-s": 12315253, "FastSAM-n": 3627301}
    with hollow():
        same = YOLOSeg(1, 8, 1.0, 1.25, 512, bins=26)
    assert sum(p.numel() for p in same.parameters()) == counts["FastSAM-x"]


def test_weights_of_a_detector_of_one_class_are_its_own(tmp_path: Path) -> None:
    given = {key: FastSAM.tiny[key] for key in ("depth", "width")}
    detector = YOLOSeg(1, 8, max_channels=512, bins=26, **given)
    file = tmp_path / "last.ckpt"
    torch.save({"state_dict": {f"network.{name}": value for name, value in detector.state_dict().items()}}, file)
    fast = network(weights=str(file))
    assert all(
        torch.equal(value, fast.image_encoder.state_dict()[name]) for name, value in detector.state_dict().items()
    )
    own = tmp_path / "own.pt"
    torch.save(fast.state_dict(), own)
    copy = network(weights=str(own))
    assert all(torch.equal(value, copy.state_dict()[name]) for name, value in fast.state_dict().items())
    of_many = partial(YOLOSeg, version=8, max_channels=512, bins=26, **given)
    torch.save(of_many(3).state_dict(), file)
    with pytest.raises(SegfolioError, match=r"have another shape: classes.0.2.weight \[3, .* for \[1, "):
        network(weights=str(file))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"image_size": 100}, "image_size of FastSAM is 100, expected a multiple of 32"),
        ({"max_masks": 0}, "max_masks of FastSAM is 0, expected 1 or more"),
        ({"prompt_score_threshold": -0.5}, "prompt_score_threshold of FastSAM is -0.5, expected 0 or more, below 1"),
        ({"weights": "nowhere.pt"}, "nowhere.pt is no file; expected the checkpoint of a run of FastSAM, or of a YOLO"),
    ],
)
def test_what_cannot_be_is_said(arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(SegfolioError, match=says):
        network(**arguments)
