"""Which query of a mask classification network took which object of the truth."""

import numpy as np
import numpy.typing as npt
from torch import Tensor
from torch.nn.functional import interpolate

from segfolio.data.labels import LabelSpace
from segfolio.data.sample import Queries
from segfolio.viz.overlay import IGNORED, VOID, Bools, Indices, Pixels, blend, borders, fit_map, rgb
from segfolio.viz.panel import enlarge, tile_size
from segfolio.viz.regions import Regions, draw_regions
from segfolio.viz.sheet import Tile, compose
from segfolio.viz.views import View

_COLUMNS, _SHOWN = 5, 18
_LEAST = 0.1  # IoU with what was taken


def query_sheet(
    image: Pixels,
    queries: Queries,
    view: View,
    labels: LabelSpace,
    title: str = "",
    max_width: int = 2000,
    min_score: float = 0.5,
) -> Pixels:
    """The truth by number, all queries together, and the mask of each.

    Queries count whose best class is not "no object" and scores at least `min_score`; the 18 that score most are shown.
    Each took the true region with which its mask has the largest IoU: it has that region's colour, and the region is
    outlined in white. Two of one colour took the same; a grey one took none, for its best IoU is below 0.1.

    Args:
        image: `[H, W, C]` RGB or grey.
        view: the reading whose truth is taken; pixels that do not count there do not count here.

    Returns:
        `[h, w, 3]` RGB.
    """
    assert view.truth is not None
    type_size = min(max(max_width // 110, 11), 16)
    size = tile_size((image.shape[0], image.shape[1]), (max_width - type_size) // _COLUMNS - type_size, max_width)
    shown, truth = enlarge(rgb(image), size), fit_map(view.truth.ids, size)
    names = ["", *(f"{n} {labels.names[c]}" for n, c in enumerate(view.classes, 1))]
    palette = np.concatenate([[VOID], view.colors]).astype(np.uint8)

    scores, classes = queries.class_logits.float().softmax(-1).max(-1)
    confident = ((classes < labels.num_classes) & (scores >= min_score)).nonzero()[:, 0]
    order = confident[scores[confident].argsort(descending=True)][:_SHOWN].tolist()

    tiles: list[Tile] = []
    taken: list[int] = []
    owner, strongest = np.zeros(truth.shape, np.int32), np.full(truth.shape, 0.5, np.float32)
    for place, q in enumerate(order, 1):
        number, iou = best_match(_resized(queries.mask_logits[q], image.shape) > 0, view.truth.ids)
        probability = 1 / (1 + np.exp(-_resized(queries.mask_logits[q], truth.shape)))
        tile = _heat(shown, probability, palette[number])
        region = truth == number
        tile[region & borders(region) & (number > 0)] = 255
        took = f"took {names[number]}  IoU {iou:.2f}" if number else "took nothing"
        tiles.append((f"query {q}  {labels.names[classes[q]]} {scores[q]:.2f}\n{took}", tile))
        taken.append(number)
        mine = probability > strongest
        owner[mine], strongest[mine] = place, probability[mine]

    numbered = Regions(truth, {n: (names[n], str(n)) for n in range(1, len(names))})
    together = Regions(owner, {place: (f"query {q}", str(q)) for place, q in enumerate(order, 1)})
    true_tile = draw_regions(shown, numbered, view.colors, type_size)
    query_tile = draw_regions(shown, together, palette[taken], type_size)
    count = f"{len(confident)} of {len(scores)} queries"
    more = f"\nthe best {_SHOWN} are shown" if len(confident) > _SHOWN else ""
    tiles = [("truth", true_tile), (f"{count} score {min_score:g} or more{more}", query_tile), *tiles]
    return compose(tiles, min(_COLUMNS, len(tiles)), [], title, type_size)


def best_match(mask: Bools, regions: Indices) -> tuple[int, float]:
    """The region that a mask shares most with, and their IoU; 0 and 0 where that is below 0.1.

    Args:
        mask: `[H, W]`.
        regions: `[H, W]`, 1 to N, 0 where there is none, `IGNORED` where pixels do not count.
    """
    counts = regions != IGNORED
    areas = np.bincount(regions[counts], minlength=2)
    shared = np.bincount(regions[counts & mask], minlength=len(areas))
    iou = shared[1:] / np.maximum(1, areas[1:] + shared.sum() - shared[1:])
    best = int(iou.argmax())
    return (best + 1, float(iou[best])) if iou[best] >= _LEAST else (0, 0.0)


def _resized(logits: Tensor, size: tuple[int, ...]) -> npt.NDArray[np.float32]:
    """`[h, w]` to height and width as predictions are."""
    return interpolate(logits.float()[None, None], size[:2], mode="bilinear", align_corners=False)[0, 0].cpu().numpy()


def _heat(image: Pixels, probability: npt.NDArray[np.floating], color: Pixels) -> Pixels:
    """The faded grey image, more of the colour the more probable a pixel is."""
    grey = blend(np.repeat(image.mean(axis=-1, keepdims=True), 3, axis=-1), 255, 0.45)
    return np.rint(grey + (color - grey.astype(np.float32)) * (0.85 * probability[..., None])).astype(np.uint8)
