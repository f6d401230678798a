"""Everything mode: against transformers' pipeline with the same weights, and rule by rule on masks drawn by hand."""

from collections.abc import Callable

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from transformers import SamImageProcessor, pipeline

from segfolio.data.formats import rle
from segfolio.data.sample import Size
from segfolio.errors import SegfolioError
from segfolio.inference.everything import Box, Everything, Found, without_holes, without_islands
from segfolio.inference.prompting import EmbeddedImages, Embedder
from segfolio.layers.prompting import Embedding, PromptableNetwork, PromptInput, Reading
from tests.inference.sam_pair import SIDE, picture, sam_pair

LOOSE = {"iou_threshold": 0.4, "stability_threshold": 0.2, "stability_offset": 0.05}


@pytest.mark.parametrize(
    ("size", "side", "crop_layers"), [((96, 128), 12, 0), ((75, 60), 12, 0), ((200, 131), 12, 0), ((45, 70), 7, 1)]
)
def test_like_transformers_the_masks_are_those_of_its_pipeline(size: Size, side: int, crop_layers: int) -> None:
    network, peer = sam_pair()
    ours, image = Embedder(network), picture(*size)
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None]
    everything = Everything(
        points_per_side=side, crop_layers=crop_layers, crop_nms_threshold=0.95, like="transformers", **LOOSE
    )

    def look(box: Box) -> EmbeddedImages:
        left, top, right, bottom = box
        return ours.embedded(pixels[..., top:bottom, left:right], [(bottom - top, right - left)])

    with torch.no_grad():
        found = everything.find(ours.embedded(pixels, [size]), look=look)
    processor = SamImageProcessor(size={"longest_edge": SIDE}, pad_size={"height": SIDE, "width": SIDE})
    expected = pipeline("mask-generation", model=peer, image_processor=processor)(
        Image.fromarray(image),
        points_per_batch=64,
        points_per_crop=side,
        crops_n_layers=crop_layers,
        pred_iou_thresh=everything.iou_threshold,
        stability_score_thresh=everything.stability_threshold,
        stability_score_offset=everything.stability_offset,
        crops_nms_thresh=everything.crop_nms_threshold,
        output_bboxes_mask=True,
    )
    assert len(expected["masks"]) >= 12
    torch.testing.assert_close(found.iou, expected["scores"], rtol=0, atol=1e-4)
    assert (found.corners() == expected["bounding_boxes"]).all()
    assert (rle.decode(found.rles, size) == np.stack(expected["masks"])).all()


class Drawn(PromptableNetwork):
    """Answers each point by three given discs, drawn with soft edges; an embedding is the brightness of its image.

    Attributes:
        discs: of a point `[P, 2]` in pixels of the square, `[P, 3, 3]` x, y, radius, and `[P, 3]` their IoU.
    """

    image_size, mask_size = 256, 64

    def __init__(self, discs: Callable[[Tensor], tuple[Tensor, Tensor]]) -> None:
        super().__init__()
        self.discs, self.read_prompts, self.drawn = discs, 0, 0

    def embed(self, images: Tensor) -> Embedding:
        return (images.float().mean((1, 2, 3)),)

    def read(self, embedding: Embedding, prompts: PromptInput, multimask: bool = True) -> Reading:
        self.read_prompts += len(prompts.points)
        shapes, iou = self.discs(prompts.points[:, 0])
        return Reading(iou, None, (shapes,))

    def draw(self, reading: Reading, keep: Tensor | None = None) -> Tensor:
        shapes = reading.state[0] if keep is None else reading.state[0][keep]
        self.drawn += shapes[..., 0].numel()
        y, x = torch.meshgrid(*[torch.arange(64) * 4 + 2.0] * 2, indexing="ij")
        distance = ((x - shapes[..., :1, None]) ** 2 + (y - shapes[..., 1:2, None]) ** 2).sqrt()
        return (shapes[..., 2:, None] - distance) / 2


def around(points: Tensor) -> tuple[Tensor, Tensor]:
    """Discs of 8, 20 and 40 pixels around each point; the middle one is thought to fit best."""
    radii = torch.tensor([8.0, 20.0, 40.0]).expand(len(points), 3)
    discs = torch.cat([points[:, None].expand(-1, 3, 2), radii[..., None]], 2)
    return discs, torch.tensor([0.5, 0.95, 0.9]).expand(len(points), 3)


def shown(network: Drawn, size: Size = (256, 256)) -> EmbeddedImages:
    return EmbeddedImages(network, network.embed(torch.zeros(1, 3, *size)), [size])


def test_only_masks_that_are_thought_to_fit_are_drawn() -> None:
    network = Drawn(around)
    found = Everything(points_per_side=8, iou_threshold=0.92, stability_threshold=0.5).find(shown(network))
    assert (network.read_prompts, network.drawn) == (64, 64)
    assert len(found.rles) == 64
    assert (found.iou == torch.tensor(0.95)).all()
    none = Everything(points_per_side=8, iou_threshold=0.99).find(shown(network))
    assert (len(none.rles), network.drawn) == (0, 64)
    assert none.instances().boxes is not None


def test_each_mask_tells_the_point_that_was_asked_for_it() -> None:
    found = Everything(points_per_side=8, iou_threshold=0.92, stability_threshold=0.5).find(shown(Drawn(around)))
    boxes = found.instances().boxes
    assert boxes is not None
    inside = (boxes[:, :2] > 21).all(1) & (boxes[:, :2] + boxes[:, 2:] < 235).all(1)
    centres = (boxes[:, :2] + boxes[:, 2:] / 2)[inside]
    assert inside.sum() >= 16
    torch.testing.assert_close(centres, found.points[inside], rtol=0, atol=1.0)


@pytest.mark.parametrize("passes", [1, 7, 64, 1000])
def test_how_many_points_go_through_the_network_at_once_makes_no_difference(passes: int) -> None:
    settings = {"points_per_side": 8, "iou_threshold": 0.6, "stability_threshold": 0.5}
    found = Everything(**settings, prompts_per_pass=passes).find(shown(Drawn(around)))
    expected = Everything(**settings).find(shown(Drawn(around)))
    assert found.rles == expected.rles
    assert (found.iou == expected.iou).all()


def test_of_two_masks_alike_the_one_that_is_thought_to_fit_better_stays() -> None:
    def same(points: Tensor) -> tuple[Tensor, Tensor]:
        discs, iou = around(points)
        discs = torch.tensor([100.0, 100, 30]).expand_as(discs)
        return discs, iou * 0 + points[:, :1] / 256

    found = Everything(points_per_side=4, iou_threshold=0, stability_threshold=0).find(shown(Drawn(same)))
    assert len(found.rles) == 1
    assert found.points[0, 0] == 224.5  # the right column of points


def test_across_crops_the_mask_from_the_smaller_crop_stays_and_what_a_crop_cuts_goes() -> None:
    """A disc around (64, 64) in every crop; seen in the upper left one and in the whole image it is the same."""
    size = (256, 256)

    def of_crop(box: Box) -> EmbeddedImages:
        left, top, right, bottom = box
        scale = 256 / max(right - left, bottom - top)

        def disc(points: Tensor) -> tuple[Tensor, Tensor]:
            place = torch.tensor([(64 - left) * scale, (64 - top) * scale, 20 * scale])
            return place.expand(len(points), 3, 3), torch.full((len(points), 3), 0.9)

        crop = Drawn(disc)
        return EmbeddedImages(crop, (torch.zeros(1),), [(bottom - top, right - left)])

    everything = Everything(points_per_side=2, crop_layers=1, stability_threshold=0, iou_threshold=0)
    boxes = [box for _, box in everything.crops(size)]
    assert boxes[0] == (0, 0, 256, 256)
    assert len(boxes) == 5
    found = everything.find(of_crop(boxes[0]), look=of_crop)
    seen_in = {tuple(crop) for crop, mask in zip(found.crops.tolist(), found.rles, strict=True) if rle.areas([mask])}
    assert seen_in == {boxes[1]}
    assert 1150 < rle.areas(found.rles)[0] < 1350


@pytest.mark.parametrize("size", [(640, 480), (333, 500)])
def test_crops_cover_the_image_and_overlap(size: Size) -> None:
    layers = [(layer, box) for layer, box in Everything(crop_layers=2).crops(size)]
    assert [sum(layer == n for layer, _ in layers) for n in range(3)] == [1, 4, 16]
    for n in range(3):
        seen = np.zeros(size, np.int64)
        for layer, (left, top, right, bottom) in layers:
            seen[top:bottom, left:right] += layer == n
        assert seen.min() == 1
        assert seen.max() == (1, 4, 4)[n]


def test_the_grid_of_a_layer_of_crops_is_coarser() -> None:
    everything = Everything(points_per_side=32, crop_layers=2, crop_points_downscale=2)
    assert [len(everything.grid(layer)) for layer in range(3)] == [1024, 256, 64]
    assert everything.grid(2)[:2].tolist() == [[1 / 16, 1 / 16], [3 / 16, 1 / 16]]


def test_a_crop_without_pixels_is_left_out() -> None:
    boxes = [box for _, box in Everything(crop_layers=2, crop_overlap=0).crops((5, 5))]
    assert boxes
    assert all(left < right and top < bottom for left, top, right, bottom in boxes)


def mask_of(*rows: str) -> np.ndarray:
    return np.array([[cell == "#" for cell in row] for row in rows])


SPOTTED = mask_of("##......", "##..####", "....#..#", "....#..#", "#...####", "........")
LARGEST = mask_of("........", "....####", "....#..#", "....#..#", "....####", "........")


def test_small_holes_are_filled_and_small_islands_removed() -> None:
    filled = without_holes(SPOTTED, 5)
    assert (filled == mask_of("##......", "##..####", "....####", "....####", "#...####", "........")).all()
    assert (without_islands(filled, 4) == (filled & ~mask_of(*["........"] * 4, "#.......", "........"))).all()
    assert without_holes(SPOTTED, 4) is SPOTTED
    assert without_islands(SPOTTED, 1) is SPOTTED


def test_a_mask_of_small_islands_alone_keeps_the_largest() -> None:
    assert (without_islands(SPOTTED, 100) == LARGEST).all()


def test_masks_are_cleaned_and_those_that_are_alike_then_are_one() -> None:
    """Every other mask is a disc with an island far off: with it, the box is another."""

    class Islands(Drawn):
        def draw(self, reading: Reading, keep: Tensor | None = None) -> Tensor:
            logits = super().draw(reading, keep)
            logits[1::2, 59:62, 59:62] = 5
            return logits

    def same(points: Tensor) -> tuple[Tensor, Tensor]:
        return torch.tensor([100.0, 100, 30]).expand(len(points), 3, 3), torch.full((len(points), 3), 0.9)

    settings = {"points_per_side": 2, "iou_threshold": 0, "stability_threshold": 0}
    assert len(Everything(**settings).find(shown(Islands(same))).rles) == 2
    (mask,) = Everything(**settings, min_region_area=100).find(shown(Islands(same))).rles
    assert rle.boxes([mask])[0, :2].min() > 60
    assert rle.boxes([mask])[0, 2:].max() < 70


def test_instances_have_the_predicted_iou_and_boxes_around_their_masks() -> None:
    mask = np.zeros((20, 30), np.uint8)
    cv2.rectangle(mask, (4, 5), (9, 11), 1, -1)
    one = Found(rle.encode(mask[None] > 0), torch.tensor([0.9]), torch.ones(1), torch.zeros(1, 2), torch.zeros(1, 4))
    instances = one.instances()
    assert (instances.labels.tolist(), instances.scores.tolist()) == ([0], [pytest.approx(0.9)])
    assert instances.boxes is not None
    assert instances.boxes.tolist() == [[4, 5, 6, 7]]
    assert one.corners().tolist() == [[4, 5, 9, 11]]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"points_per_side": 0}, "points_per_side is 0, expected 1 or more"),
        ({"stability_threshold": -0.1}, "stability_threshold is -0.1, expected 0 or more"),
        ({"iou_threshold": float("nan")}, "iou_threshold is nan, expected 0 or more"),
        ({"nms_threshold": 1.2}, "nms_threshold is 1.2, expected 0 to 1"),
        ({"points_per_side": 3, "crop_layers": 2, "crop_points_downscale": 2}, "3 points a side leave none"),
    ],
)
def test_numbers_out_of_range_are_one_sentence(given: dict[str, float], said: str) -> None:
    with pytest.raises(SegfolioError, match=f"everything mode: {said}"):
        Everything(**given)


def test_crops_of_an_embedding_alone_are_one_sentence() -> None:
    with pytest.raises(SegfolioError, match="crop_layers has to see the image"):
        Everything(crop_layers=1).find(shown(Drawn(around)))
