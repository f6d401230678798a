"""SOLOv2: its grids, which cells answer for which object, and that it learns."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from segfolio.architectures.one_stage.solo_v2 import GridRecipe, SOLOv2, answering, centres_of_mass, dice, with_places
from segfolio.errors import SegfolioError
from segfolio.inference.paste_masks import instances
from segfolio.layers.detection import DetectionTarget, Objects
from segfolio.layers.hollow import hollow
from segfolio.layers.mask_maps import covered
from tests.architectures.test_detection_contract import learned, scene, step, target

SCRATCH: dict[str, Any] = {**SOLOv2.tiny, "norm": "group", "frozen_stride": 0}


def test_the_layers_are_those_of_the_paper() -> None:
    """Of 80 classes: the pyramid, four layers of 512 before classes and kernels, and the features of masks."""

    def normalised(before: int, after: int, kernel: int = 3) -> int:
        return before * kernel**2 * after + 2 * after

    pyramid = sum((channels + 1) * 256 for channels in (256, 512, 1024, 2048)) + 4 * (256 * 9 + 1) * 256
    branches = [(256, 80), (258, 256)]
    heads = sum(normalised(n, 512) + 3 * normalised(512, 512) + (512 * 9 + 1) * out for n, out in branches)
    features = 3 * normalised(256, 128) + normalised(258, 128) + 3 * normalised(128, 128) + normalised(128, 256, 1)
    with hollow():
        network = SOLOv2(80)
        body = sum(p.numel() for p in network.backbone.body.parameters())
    assert sum(p.numel() for p in network.parameters()) - body == pyramid + heads + features


def test_levels_are_brought_to_their_grids_and_know_where_they_are() -> None:
    network = SOLOv2(2, **SOLOv2.tiny)
    levels = [torch.zeros(1, 16, 64 // stride, -(-96 // stride)) for stride in (4, 8, 16, 32, 64)]
    gridded = network.gridded(levels)
    assert [tuple(each.shape[1:]) for each in gridded] == [(18, n, n) for n in (10, 9, 6, 4, 3)]
    places = with_places(torch.zeros(1, 1, 3, 5))[0, 1:]
    assert places[0].tolist() == [[-1, -0.5, 0, 0.5, 1]] * 3
    assert places[1].T.tolist() == [[-1, 0, 1]] * 5
    for each in gridded:
        assert (each[0, -2].diff(dim=1) > 0).all()
        assert (each[0, -1].diff(dim=0) > 0).all()


def plainly(
    objects: Objects, grids: tuple[int, ...], height: int, width: int, recipe: GridRecipe
) -> set[tuple[int, ...]]:
    """One object after the other, the largest first, so that smaller ones take its cells."""
    owner: dict[tuple[int, int], int] = {}
    sides = objects.boxes[:, 2:] - objects.boxes[:, :2]
    for number in sides.prod(1).argsort(descending=True).tolist():
        wide, high = sides[number].tolist()
        image = int(objects.image[number])
        rows, columns = objects.masks[image][number - int(objects.firsts[image])].nonzero(as_tuple=True)
        x, y = float(columns.float().mean()) + 0.5, float(rows.float().mean()) + 0.5
        first = 0
        for place, (n, (low, high_end)) in enumerate(zip(grids, recipe.ranges, strict=True)):
            fits = (place == 0 or low <= (wide * high) ** 0.5) and (place == 4 or (wide * high) ** 0.5 <= high_end)
            for row in range(n) if fits else ():
                for column in range(n):
                    own = int(y / height * n), int(x / width * n)
                    near = abs(row - own[0]) <= 1 and abs(column - own[1]) <= 1
                    top, bottom = (int((y + sign * 0.1 * high) / height * n) for sign in (-1, 1))
                    left, right = (int((x + sign * 0.1 * wide) / width * n) for sign in (-1, 1))
                    if near and top <= row <= bottom and left <= column <= right:
                        owner[image, first + row * n + column] = number
            first += n**2
    return {(*where, number) for where, number in owner.items()}


def test_cells_near_the_middle_of_an_object_answer_for_it() -> None:
    torch.manual_seed(0)
    size, recipe = (96, 128), GridRecipe(ranges=((1, 20), (12, 40), (30, 60), (50, 80), (70, 90)))
    given = []
    for count in (12, 0, 7):
        masks = torch.zeros(count, *size, dtype=torch.bool)
        boxes = torch.zeros(count, 4)
        for mask, box in zip(masks, boxes, strict=True):
            wide, high = (int(torch.randint(3, n, ())) for n in (128, 96))
            x, y = int(torch.randint(0, 129 - wide, ())), int(torch.randint(0, 97 - high, ()))
            mask[y : y + high, x : x + wide] = torch.rand(high, wide) > 0.3
            box[:] = torch.tensor([x, y, x + wide, y + high])
        given.append(DetectionTarget(boxes, torch.zeros(count, dtype=torch.int64), masks))
    objects = Objects.of(given, 1)
    grids = (20, 16, 12, 8, 6)
    found = torch.stack(answering(objects, grids, size, recipe), 1).tolist()
    assert set(map(tuple, found)) == plainly(objects, grids, *size, recipe)
    assert len(found) == len(set(map(tuple, found))) > 30


def test_objects_of_all_sizes_are_learned() -> None:
    """Of a single pixel, and one larger than all ranges."""
    network, size = SOLOv2(1, **SCRATCH), (64, 4096)
    for box in ((1, 1, 2, 2, 0), (0, 0, 4096, 64, 0)):
        wanted = target(size, box)
        objects = Objects.of([wanted], 1)
        tiny = replace(network.recipe, ranges=tuple((low / 8, high / 8) for low, high in network.recipe.ranges))
        assert len(answering(objects, network.grids, size, tiny)[0]) >= 1
    losses = step(network, torch.randn(1, 3, 64, 96), [target((64, 96), (1, 1, 2, 2, 0))])
    assert losses["mask"] > 0
    kernel = network.kernels[-1].weight.grad
    assert kernel is not None
    assert kernel.abs().max() > 0


def test_the_centre_of_mass_is_that_of_pixels() -> None:
    masks = torch.zeros(2, 5, 7, dtype=torch.bool)
    masks[0, 2, 3] = masks[1, 0, :4] = masks[1, 1, 0] = True
    assert centres_of_mass(masks)[0].tolist() == [3.5, 2.5]
    torch.testing.assert_close(centres_of_mass(masks)[1], torch.tensor([(0.5 + 1.5 + 2.5 + 3.5 + 0.5) / 5, 0.7]))


def test_dice_is_0_of_masks_that_are_alike_and_1_of_those_apart() -> None:
    truth = torch.tensor([[[1.0, 0.0], [1.0, 0.0]]])
    assert dice(100 * (truth - 0.5), truth, truth).item() == pytest.approx(0)
    assert dice(-100 * (truth - 0.5), truth, truth).item() == pytest.approx(1)
    half = dice(torch.zeros(1, 2, 2), truth, truth).item()
    assert half == pytest.approx(1 - 2 * (2 * 0.5) / (4 * 0.25 + 2))


def test_it_overfits_one_image_and_finds_each_object_once() -> None:
    torch.manual_seed(0)
    images, wanted = scene()
    network = SOLOv2(2, **SCRATCH)
    learned(network, images, wanted, 120, 0.005)
    assert wanted.masks is not None
    with torch.no_grad():
        (found,) = network.eval()(images, [(96, 128)])
    shares = covered(wanted.masks, 24, 32) > 8
    for label in (0, 1):
        (places,) = (found.labels == label).nonzero(as_tuple=True)
        assert found.scores[places[0]] > 0.5
        assert (found.scores[places[1:]] < 0.3).all()  # what Matrix NMS has left of the same
        mask = found.masks[places[0]] > 0.5
        assert (mask & shares[label]).sum() / (mask | shares[label]).sum() > 0.8
    whole = instances(found, torch.tensor([5, 7]), (96, 128), (192, 256))
    assert whole.boxes is None
    assert whole.labels[:2].sort().values.tolist() == [5, 7]
    assert {tuple(each["size"]) for each in whole.rles} == {(192, 256)}


def test_a_cell_of_several_classes_draws_one_mask_for_each() -> None:
    """And a mask no larger than a cell of its grid is none."""
    network = SOLOv2(2, **SOLOv2.tiny)
    scores, factors = torch.zeros(sum(n**2 for n in network.grids), 2), torch.zeros(242, 1)
    scores[0] = torch.tensor([0.9, 0.5])
    scores[241, 0] = 0.8
    factors[0], factors[241] = 20.0, -20.0
    maps = -torch.ones(1, 16, 24)
    maps[0, :3, :3] = 1
    found = network.found(scores, factors, maps, (64, 96))
    assert found.labels.tolist() == [0, 0, 1]
    assert found.scores.tolist() == pytest.approx([0.9, 0.8, 0.5])
    assert [int((mask > 0.5).sum()) for mask in found.masks] == [9, 375, 9]
    maps[0, 2, 2] = -1  # 8 cells are as large as a stride
    assert network.found(scores, factors, maps, (64, 96)).scores.tolist() == pytest.approx([0.8])
    assert len(network.found(scores, factors, maps, (8, 96)).masks[0]) == 2


def test_grids_and_ranges_go_together() -> None:
    with pytest.raises(SegfolioError, match=r"there are 2 grids and 5 recipe\.ranges; give one of each"):
        SOLOv2(1, **{**SOLOv2.tiny, "grids": (8, 4)})
