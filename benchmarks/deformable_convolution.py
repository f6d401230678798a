"""InternImage's deformable convolution against a loop over pixels, groups and points.

    python -m benchmarks.deformable_convolution

A map of 12 x 12 pixels of 16 channels in 2 groups, one CPU thread.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.confusion_matrix import median_times
from segfolio.architectures.transformer.intern_image import sample

AIMS = {"time of the loop": ">= 3"}


def naive(values: Tensor, offsets: Tensor, weights: Tensor, scale: float) -> Tensor:
    """The paper's equation 2, one point after the other."""
    batch, height, width, groups, _, _ = offsets.shape
    share = values.shape[-1] // groups
    found = torch.zeros_like(values)

    def at(image: int, row: int, column: int, channels: slice) -> Tensor:
        inside = 0 <= row < height and 0 <= column < width
        return values[image, row, column, channels] if inside else torch.zeros(share, dtype=values.dtype)

    for image in range(batch):
        for row in range(height):
            for column in range(width):
                for group in range(groups):
                    channels = slice(group * share, (group + 1) * share)
                    for point in range(9):
                        dx, dy = (point // 3 - 1, point % 3 - 1)
                        x, y = offsets[image, row, column, group, point].tolist()
                        x, y = column + scale * (dx + x), row + scale * (dy + y)
                        left, top = int(x // 1), int(y // 1)
                        right, below = x - left, y - top
                        value = (1 - right) * (1 - below) * at(image, top, left, channels)
                        value = value + right * (1 - below) * at(image, top, left + 1, channels)
                        value = value + (1 - right) * below * at(image, top + 1, left, channels)
                        value = value + right * below * at(image, top + 1, left + 1, channels)
                        found[image, row, column, channels] += weights[image, row, column, group, point] * value
    return found


def drawn(batch: int, height: int, width: int, groups: int, channels: int) -> tuple[Tensor, Tensor, Tensor]:
    """Values, offsets of some pixels, and weights."""
    values = torch.randn(batch, height, width, channels, dtype=torch.float64)
    offsets = 2 * torch.randn(batch, height, width, groups, 9, 2, dtype=torch.float64)
    return values, offsets, torch.rand(batch, height, width, groups, 9, dtype=torch.float64)


def main() -> dict[str, float]:
    """How many times our time the loop takes.

    Raises:
        AssertionError: sums that are not the loop's.
    """
    torch.set_num_threads(1)
    torch.manual_seed(0)
    given = drawn(1, 12, 12, groups=2, channels=16)
    torch.testing.assert_close(sample(*given, 1.0), naive(*given, 1.0))

    def run(compute: Callable[..., Tensor]) -> Callable[[], None]:
        def update() -> None:
            compute(*given, 1.0)

        return update

    seconds = median_times({"ours": run(sample), "loop": run(naive)}, rounds=3)
    for name, taken in seconds.items():
        print(f"{name:8}{1e3 * taken:10.1f} ms")
    return {"time of the loop": seconds["loop"] / seconds["ours"]}


if __name__ == "__main__":
    main()
