"""What colour pixels have.

The `adjust_*` functions are torchvision's, on `[H, W, C]` of any type; they round where torchvision truncates, and
floats are not clipped.
"""

from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from segfolio.data.image_space import ImageSpace
from segfolio.data.sample import Sample, to_image, to_pixels
from segfolio.data.transforms.base import check_probability
from segfolio.errors import SegfolioError
from segfolio.words import counted

Pixels = npt.NDArray[Any]

_STRIP = 64  # rows whose floats stay in the cache: a quarter less time
_SAME = np.arange(256)  # levels that stay
_LUMA = np.array([0.2989, 0.587, 0.114])  # torchvision's, after ITU-R BT.601


class ColorJitter:
    """Brightness, contrast, saturation and hue by random factors, in random order.

    Factors are torchvision's: uniform in [max(0, 1 - x), 1 + x], hue in [-x, x] turns of the colour circle.
    Saturation and hue leave grey images as they are; images of other bands have none.

    Args:
        brightness, contrast, saturation, hue: x of each.
        probability: of each of the four changes.

    Raises:
        SegfolioError: a negative strength, a hue above 0.5, no probability; saturation or hue of an image that is
            neither RGB nor grey.
    """

    def __init__(
        self,
        brightness: float = 0.0,
        contrast: float = 0.0,
        saturation: float = 0.0,
        hue: float = 0.0,
        probability: float = 1.0,
    ) -> None:
        if min(brightness, contrast, saturation) < 0 or not 0 <= hue <= 0.5:
            raise SegfolioError(
                f"ColorJitter: brightness {brightness}, contrast {contrast}, saturation {saturation}, "
                f"hue {hue}; the first three are at least 0, hue lies between 0 and 0.5"
            )
        check_probability(self, probability=probability)
        self.strengths, self.probability = (brightness, contrast, saturation, hue), probability

    def check(self, space: ImageSpace) -> None:
        self._expect(space.channels, "the dataset")

    def _expect(self, channels: int, of: str) -> None:
        if channels not in (1, 3) and any(self.strengths[2:]):
            raise SegfolioError(
                f"ColorJitter: {of} has {counted(channels, 'channel')}, and saturation and hue are of RGB; leave them "
                "out: brightness and contrast are of any"
            )

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        pixels = to_pixels(sample.image)
        self._expect(pixels.shape[2], sample.image_id)
        *strengths, hue = self.strengths
        factors = [rng.uniform(max(0.0, 1 - x), 1 + x) for x in strengths] + [rng.uniform(-hue, hue)]
        steps = (adjust_brightness, adjust_contrast, adjust_saturation, adjust_hue)
        for i in rng.permutation(4):
            if self.strengths[i] and (self.probability == 1 or rng.random() < self.probability):
                pixels = steps[i](pixels, factors[i])
        return replace(sample, image=to_image(pixels))


class PhotometricDistortion:
    """The changes of colour of SSD (Liu et al. 2016, arXiv 1512.02325), as detectron2's `ColorAugSSDTransform` and
    mmsegmentation's `PhotoMetricDistortion` have them: of MaskFormer, Mask2Former and mmsegmentation's recipes.

    Brightness, then contrast, saturation and hue, or contrast after the other two. Unlike torchvision's, brightness is
    added, contrast multiplies every value, and saturation and hue are those of HSV in 8 bits.

    Args:
        brightness: the largest sum, either way, of 255.
        contrast, saturation: the range of the factor.
        hue: the largest shift, either way, of 180 around the circle of colours.
        probability: of each of the four changes.

    Raises:
        SegfolioError: a negative number, a range that is none, no probability, an image that is not RGB.
    """

    def __init__(
        self,
        brightness: float = 32.0,
        contrast: tuple[float, float] = (0.5, 1.5),
        saturation: tuple[float, float] = (0.5, 1.5),
        hue: int = 18,
        probability: float = 0.5,
    ) -> None:
        if min(brightness, hue) < 0 or not all(0 <= low <= high for low, high in (contrast, saturation)):
            raise SegfolioError(
                f"PhotometricDistortion: brightness {brightness}, contrast {contrast}, saturation {saturation}, "
                f"hue {hue}; none is negative, and ranges are of the lower and the upper factor"
            )
        check_probability(self, probability=probability)
        self.brightness, self.contrast, self.saturation, self.hue = brightness, contrast, saturation, hue
        self.probability = probability

    def check(self, space: ImageSpace) -> None:
        self._expect(space.channels, space.dtype, "the dataset")

    @staticmethod
    def _expect(channels: int, dtype: str, of: str) -> None:
        if channels != 3 or dtype != "uint8":
            raise SegfolioError(
                f"PhotometricDistortion: {of} has {counted(channels, 'channel')} of {dtype}; it needs RGB of uint8"
            )

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        pixels = to_pixels(sample.image)
        self._expect(pixels.shape[2], pixels.dtype.name, sample.image_id)
        changes = [self._brightness, self._saturation, self._hue]
        changes.insert(1 if rng.random() < 0.5 else 3, self._contrast)
        for change in changes:
            if rng.random() < self.probability:
                pixels = change(pixels, rng)
        return replace(sample, image=to_image(pixels))

    def _brightness(self, pixels: Pixels, rng: np.random.Generator) -> Pixels:
        rows = np.eye(3, 4)
        rows[:, -1] = rng.uniform(-self.brightness, self.brightness)
        return _affine(pixels, rows)

    def _contrast(self, pixels: Pixels, rng: np.random.Generator) -> Pixels:
        return _affine(pixels, rng.uniform(*self.contrast) * np.eye(3))

    def _saturation(self, pixels: Pixels, rng: np.random.Generator) -> Pixels:
        levels = np.arange(256) * rng.uniform(*self.saturation)
        return _in_hsv(pixels, saturation=levels.round().clip(max=255))

    def _hue(self, pixels: Pixels, rng: np.random.Generator) -> Pixels:
        return _in_hsv(pixels, hue=(np.arange(256) + rng.integers(-self.hue, self.hue + 1)) % 180)


def adjust_brightness(pixels: Pixels, factor: float) -> Pixels:
    """`factor` times every value."""
    return _affine(pixels, factor * np.eye(pixels.shape[2]))


def adjust_contrast(pixels: Pixels, factor: float) -> Pixels:
    """Away from the mean of the image's luminance, or towards it; of other bands than RGB, each its own mean."""
    channels = pixels.shape[2]
    fours = (np.ascontiguousarray(pixels[..., c : c + 4]) for c in range(0, channels, 4))
    means = np.concatenate([cv2.mean(four) for four in fours])[:channels]
    mean = np.dot(means, _LUMA) if channels == 3 else means
    rows = factor * np.eye(channels, channels + 1)
    rows[:, -1] = (1 - factor) * mean
    return _affine(pixels, rows)


def adjust_saturation(pixels: Pixels, factor: float) -> Pixels:
    """Away from each pixel's luminance, or towards it."""
    return _affine(pixels, factor * np.eye(3) + (1 - factor) * _LUMA) if pixels.shape[2] == 3 else pixels


def adjust_hue(pixels: Pixels, turns: float) -> Pixels:
    """Around the circle of hues, saturation and value (of HSV) unchanged."""
    if pixels.shape[2] == 1:
        return pixels
    shift = (360 * (turns % 1), 0.0, 0.0, 0.0)  # HSV2RGB wraps above 360, not below 0
    result = np.empty_like(pixels)
    for top in range(0, len(pixels), _STRIP):
        buffer = pixels[top : top + _STRIP].astype(np.float32)  # 8 bits would keep 180 hues
        cv2.cvtColor(buffer, cv2.COLOR_RGB2HSV, dst=buffer)
        cv2.add(buffer, shift, dst=buffer)
        cv2.cvtColor(buffer, cv2.COLOR_HSV2RGB, dst=buffer)
        if pixels.dtype == np.uint8:
            cv2.convertScaleAbs(buffer, dst=result[top : top + _STRIP])
        else:
            result[top : top + _STRIP] = buffer if pixels.dtype == np.float32 else np.rint(buffer)
    return result


def _affine(pixels: Pixels, rows: npt.NDArray[np.float64]) -> Pixels:
    """`[C, C]` matrix, or `[C, C + 1]` with an offset, times every pixel; rounded and clipped."""
    return cv2.transform(pixels, rows).reshape(pixels.shape)


def _in_hsv(pixels: Pixels, hue: npt.NDArray[Any] = _SAME, saturation: npt.NDArray[Any] = _SAME) -> Pixels:
    """The new value, `[256]`, of each hue (0 to 179) and of each saturation."""
    table = np.stack([hue, saturation, _SAME], -1).astype(np.uint8)
    return cv2.cvtColor(cv2.LUT(cv2.cvtColor(pixels, cv2.COLOR_RGB2HSV), table[None]), cv2.COLOR_HSV2RGB)
