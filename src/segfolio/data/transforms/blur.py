"""How sharp an image is."""

from dataclasses import replace

import cv2
import numpy as np

from segfolio.data.sample import Sample, to_image, to_pixels
from segfolio.errors import SegfolioError


class GaussianBlur:
    """A Gaussian blur, with a probability; the truth stays as it is.

    Args:
        kernel_size: in pixels, odd.
        sigma: in pixels; if not given, OpenCV's for the kernel's size: of 5 pixels the weights 1, 4, 6, 4, 1, with
            which PSPNet is trained in its author's PyTorch code (hszhao/semseg).
        probability: of a blur.

    Raises:
        SegfolioError: an even kernel size or one below 1, a sigma that is not above 0, no probability.
    """

    def __init__(self, kernel_size: int = 5, sigma: float | None = None, probability: float = 0.5) -> None:
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise SegfolioError(f"GaussianBlur: kernel_size is {kernel_size}; give an odd number of pixels, such as 5")
        if sigma is not None and sigma <= 0:
            raise SegfolioError(f"GaussianBlur: sigma is {sigma}; give one above 0, or none")
        if not 0 <= probability <= 1:
            raise SegfolioError(f"GaussianBlur: probability is {probability}; it lies between 0 and 1")
        self.kernel_size, self.sigma, self.probability = kernel_size, sigma, probability

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        if rng.random() >= self.probability:
            return sample
        pixels = to_pixels(sample.image)
        blurred = cv2.GaussianBlur(pixels, (self.kernel_size, self.kernel_size), self.sigma or 0)
        return replace(sample, image=to_image(blurred.reshape(pixels.shape)))
