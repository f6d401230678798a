"""How sharp an image is."""

from dataclasses import replace

import cv2
import numpy as np

from segfolio.data.sample import Sample, to_image, to_pixels
from segfolio.data.transforms.base import check_probability
from segfolio.errors import SegfolioError


class GaussianBlur:
    """A Gaussian blur, with a probability; the truth stays as it is.

    Args:
        kernel_size: in pixels, odd.
        sigma: in pixels, or the range that it is drawn from, uniformly (0 to 1 in EncNet's code); if not given,
            OpenCV's for the kernel's size: of 5 pixels the weights 1, 4, 6, 4, 1, with which PSPNet is trained in its
            author's PyTorch code (hszhao/semseg).
        probability: of a blur.

    Raises:
        SegfolioError: an even kernel size or one below 1, a sigma that is not above 0, no range, no probability.
    """

    def __init__(
        self, kernel_size: int = 5, sigma: float | tuple[float, float] | None = None, probability: float = 0.5
    ) -> None:
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise SegfolioError(f"GaussianBlur: kernel_size is {kernel_size}; give an odd number of pixels, such as 5")
        low, high = sigma if isinstance(sigma, tuple) else (sigma or 0.0, 1.0 if sigma is None else sigma)
        if not (0 <= low <= high and high > 0):
            raise SegfolioError(f"GaussianBlur: sigma is {sigma}; give one above 0, the lower and the upper, or none")
        check_probability(self, probability=probability)
        self.kernel_size, self.probability = kernel_size, probability
        self.sigma: float | tuple[float, float] = sigma or 0.0

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        if rng.random() >= self.probability:
            return sample
        pixels = to_pixels(sample.image)
        sigma = rng.uniform(*self.sigma) if isinstance(self.sigma, tuple) else self.sigma
        blurred = cv2.GaussianBlur(pixels, (self.kernel_size, self.kernel_size), sigma)
        return replace(sample, image=to_image(blurred.reshape(pixels.shape)))
