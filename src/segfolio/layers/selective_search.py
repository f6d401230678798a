"""Selective search for object recognition (Uijlings et al., IJCV 2013): boxes that may hold an object, unlearned.

Follows the paper's "fast" strategy: two colour spaces, two scales of the initial segments (Felzenszwalb & Huttenlocher,
IJCV 2004) and two combinations of similarities, each grouped until one region is left. Deviates: the image is read at
most 256 pixels wide or high; segments come from the minimum spanning tree of the pixels' 4-neighbourhood.
"""

import heapq

import cv2
import numpy as np
import numpy.typing as npt
from scipy.ndimage import find_objects
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import minimum_spanning_tree

LONGEST = 256
SCALES = (50.0, 100.0)  # k of the paper
SMALLEST = 20  # pixels of a segment
COLORS = (cv2.COLOR_RGB2HSV, cv2.COLOR_RGB2LAB)

Array = npt.NDArray[np.float32]
Ids = npt.NDArray[np.intp]
Box = tuple[int, int, int, int]


def selective_search(image: npt.NDArray[np.uint8], limit: int = 2000) -> Array:
    """Boxes x1, y1, x2, y2 `[N, 4]` in pixels, none twice, the likelier ones first.

    Args:
        image: `[H, W, 3]`, RGB.
        limit: the largest N.
    """
    height, width = image.shape[:2]
    factor = min(1.0, LONGEST / max(height, width))
    small = cv2.resize(image, (round(width * factor) or 1, round(height * factor) or 1), interpolation=cv2.INTER_AREA)
    ranked: dict[Box, float] = {}
    random = np.random.default_rng(0)
    for color in COLORS:
        pixels = cv2.cvtColor(small, color)
        for scale in SCALES:
            ids = segments(pixels, scale)
            for with_color in (True, False):
                boxes = group(pixels, ids, with_color)
                for place, box in enumerate(reversed(boxes), 1):  # the whole image first
                    rank = place * random.random()  # so that no strategy comes first (section 4.4)
                    ranked[box] = min(rank, ranked.get(box, rank))
    best = sorted(ranked, key=lambda box: ranked[box])[:limit]
    zoom = np.array([width, height] * 2, np.float32) / np.array([*small.shape[1::-1]] * 2, np.float32)
    return (np.array(best) * zoom).astype(np.float32)


def segments(pixels: npt.NDArray[np.uint8], scale: float) -> Ids:
    """Ids `[H, W]` from 0 on, of regions that differ less inside than from each other.

    Args:
        scale: the larger, the larger the regions.
    """
    height, width = pixels.shape[:2]
    smooth = cv2.GaussianBlur(pixels, (0, 0), 0.8).astype(np.float32)
    index = np.arange(height * width).reshape(height, width)
    ends = [(index[:, :-1], index[:, 1:]), (index[:-1], index[1:])]
    steps = [smooth[:, 1:] - smooth[:, :-1], smooth[1:] - smooth[:-1]]
    weight = np.concatenate([np.sqrt((step**2).sum(-1)).ravel() for step in steps]) + 1e-3  # 0 would be no edge
    first, second = (np.concatenate([pair[end].ravel() for pair in ends]) for end in (0, 1))
    tree = minimum_spanning_tree(coo_matrix((weight, (first, second)), (index.size, index.size))).tocoo()
    order = np.argsort(tree.data, kind="stable")
    edges = list(zip(*(part[order].tolist() for part in (tree.row, tree.col, tree.data)), strict=True))

    parent, area, limit = list(range(index.size)), [1] * index.size, [scale] * index.size

    def root(place: int) -> int:
        while parent[place] != place:
            parent[place] = place = parent[parent[place]]
        return place

    for small_too in (False, True):
        for a, b, difference in edges:
            a, b = root(a), root(b)
            joined = min(area[a], area[b]) < SMALLEST if small_too else difference <= min(limit[a], limit[b])
            if a != b and joined:
                parent[b] = a
                area[a] += area[b]
                limit[a] = difference + scale / area[a]
    roots = np.array([root(place) for place in range(index.size)])
    return np.unique(roots, return_inverse=True)[1].reshape(height, width)


def group(pixels: npt.NDArray[np.uint8], ids: Ids, with_color: bool) -> list[Box]:
    """The boxes of all regions while the two most similar neighbours are joined, down to one (Algorithm 1).

    Similar are regions of like texture, small ones, ones that fill each other's box, and of like colour if asked.
    """
    total, count = ids.size, int(ids.max()) + 1
    area = np.bincount(ids.ravel()).tolist()
    histograms = list(_histograms(pixels, ids, count, with_color))
    boxes = [(x.start, y.start, x.stop, y.stop) for y, x in find_objects(ids + 1)]
    neighbours: list[set[int]] = [set() for _ in range(count)]
    for a, b in ((ids[:, :-1], ids[:, 1:]), (ids[:-1], ids[1:])):
        for i, j in np.unique(np.stack([a[a != b], b[a != b]], 1), axis=0).tolist():
            neighbours[i].add(j)
            neighbours[j].add(i)

    def similarity(i: int, j: int) -> float:
        x1, y1, x2, y2 = _union(boxes[i], boxes[j])
        hole = (x2 - x1) * (y2 - y1) - area[i] - area[j]
        alike = float(np.minimum(histograms[i], histograms[j]).sum())
        return alike + (1 - (area[i] + area[j]) / total) + (1 - hole / total)

    queue = [(-similarity(i, j), i, j) for i in range(count) for j in neighbours[i] if i < j]
    heapq.heapify(queue)
    gone: set[int] = set()
    while queue:
        _, i, j = heapq.heappop(queue)
        if i in gone or j in gone:
            continue
        new = len(boxes)
        boxes.append(_union(boxes[i], boxes[j]))
        area.append(area[i] + area[j])
        histograms.append((area[i] * histograms[i] + area[j] * histograms[j]) / area[new])
        gone |= {i, j}
        neighbours.append((neighbours[i] | neighbours[j]) - gone)
        for other in neighbours[new]:
            neighbours[other].add(new)
            heapq.heappush(queue, (-similarity(other, new), other, new))
    return boxes


def _histograms(pixels: npt.NDArray[np.uint8], ids: Ids, count: int, with_color: bool) -> Array:
    """Of each region: 25 bins of each channel, and 10 bins of its derivatives in 8 directions; each sums to 1."""
    values = pixels.astype(np.float32)
    across, down = (cv2.Sobel(cv2.GaussianBlur(values, (0, 0), 1), -1, *way) for way in ((1, 0), (0, 1)))
    maps = [(values, 25, 256.0)] if with_color else []
    turns = np.arange(8) * np.pi / 4
    slopes = [np.maximum(np.cos(turn) * across + np.sin(turn) * down, 0) for turn in turns]
    texture = np.concatenate(slopes, -1)
    maps.append((texture, 10, float(texture.max()) + 1e-3))
    kinds = []
    for kind, bins, top in maps:
        places = (kind * (bins / top)).astype(np.intp).clip(0, bins - 1)
        joint = ids[..., None] * bins + places
        parts = [np.bincount(joint[..., channel].ravel(), minlength=count * bins) for channel in range(joint.shape[-1])]
        counts = np.stack(parts, 1).reshape(count, -1).astype(np.float32)
        kinds.append(counts / counts.sum(1, keepdims=True))
    return np.concatenate(kinds, 1)


def _union(a: Box, b: Box) -> Box:
    return min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3])
