"""Time and memory of sliding-window inference, ours against MONAI's and a plain loop: same network, same windows.

    python -m benchmarks.sliding_window

An image of 1024 x 1024, 60 classes, windows of 256 and a stride of 192, one window per forward pass, Gaussian weights,
one CPU thread, down to the class of each pixel. Memory is the most that tensors made on the way hold at one time; also
that of the preset whose windows are largest, at 8192 x 8192 and 150 classes. It does not grow with the height, so only
as many rows are run as give that many overlaps, and the result of the others is added.

MONAI is no dependency: `pip install --no-deps --target <folder> monai`, and put the folder into PYTHONPATH.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from benchmarks.confusion_matrix import median_times
from segfolio.inference.protocols import Slide, find
from segfolio.inference.sliding import gaussian, starts
from segfolio.inference.tiles import Network, Scores, argmax, resized
from segfolio.speed.measure import peak_bytes

try:
    from monai.inferers import sliding_window_inference
except ImportError:
    sliding_window_inference = None

PEERS = ("plain loop", "MONAI")
AIMS = {f"time, {peer}": ">= 1" for peer in PEERS} | {f"memory, {peer}": "<= 0.333" for peer in PEERS}
AIMS["GiB, 8192 x 8192"] = "<= 2"
SIZE, CLASSES, WINDOW, STRIDE = 1024, 60, 256, 192


def gibibytes(slide: Slide, side: int = 8192, classes: int = 150) -> float:
    """At the peak of a square image."""
    (window, _), (stride, _) = slide.window, slide.stride
    size = (window + stride + (side - window) % stride, side)  # the last row of windows is moved back as in the square

    def scores(windows: Tensor) -> list[Scores]:
        return [partial(resized, torch.zeros(classes, 1, 1).expand(-1, window // 8, window // 8)) for _ in windows]

    network, image = Network(scores, True, torch.zeros(3, 1, 1)), torch.zeros(3, *size, dtype=torch.uint8)
    held = peak_bytes(lambda: (argmax(slide.tiles(network, image, size), size), None)[1])
    return (held + (side - size[0]) * side) / 2**30


def main() -> dict[str, float]:
    """How many times longer the others take, which part of their memory we need, and our memory for a large image."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 8, 3, stride=4, padding=1), nn.ReLU(), nn.Conv2d(8, CLASSES, 1)).eval()
    image = torch.rand(3, SIZE, SIZE)

    def logits(windows: Tensor) -> Tensor:
        """As other loops need them: as large as the windows."""
        return interpolate(network(windows), windows.shape[-2:], mode="bilinear", align_corners=False)

    def scores(windows: Tensor) -> list[Scores]:
        return [partial(resized, one) for one in network(windows)]

    def ours() -> Tensor:
        slide = Slide(WINDOW, STRIDE, weighting="gaussian")
        return argmax(slide.tiles(Network(scores, True, torch.zeros(3, 1, 1)), image, (SIZE, SIZE)), (SIZE, SIZE))

    def plain_loop() -> Tensor:
        sums, weights = torch.zeros(CLASSES, SIZE, SIZE), torch.zeros(SIZE, SIZE)
        weight = gaussian((WINDOW, WINDOW))
        for y in starts(SIZE, WINDOW, STRIDE):
            for x in starts(SIZE, WINDOW, STRIDE):
                here = (..., slice(y, y + WINDOW), slice(x, x + WINDOW))
                sums[here] += logits(image[here][None])[0] * weight
                weights[here] += weight
        return (sums / weights).argmax(0)

    def monai() -> Tensor:
        found = sliding_window_inference(
            image[None], (WINDOW, WINDOW), 1, logits, overlap=1 - STRIDE / WINDOW, mode="gaussian"
        )
        return found[0].argmax(0)

    sides: dict[str, Callable[[], Tensor]] = {"ours": ours, "plain loop": plain_loop}
    if sliding_window_inference is None:
        print("MONAI is not here; see the top of this file")
    else:
        sides["MONAI"] = monai
    with torch.no_grad():
        for name, side in sides.items():
            same = (side() == ours()).float().mean().item()
            assert same > 0.999, f"{name} gives {same:.1%} of our classes"
        seconds = median_times({name: lambda side=side: (side(), None)[1] for name, side in sides.items()}, rounds=3)
        memory = {name: peak_bytes(lambda side=side: (side(), None)[1]) for name, side in sides.items()}
    for name in sides:
        print(f"{name:12}{seconds[name]:7.2f} s{memory[name] / 1e6:9.1f} MB at peak")
    large = gibibytes(find("slide_768"))
    print(f"{large:.2f} GiB at peak for 8192 x 8192 pixels, 150 classes")
    peers = [name for name in sides if name != "ours"]
    return (
        {f"time, {name}": seconds[name] / seconds["ours"] for name in peers}
        | {f"memory, {name}": memory["ours"] / memory[name] for name in peers}
        | {"GiB, 8192 x 8192": large}
    )


if __name__ == "__main__":
    print(main())
