"""Time of the dense CRF and how near it is to exact mean field, ours against pydensecrf2.

    python -m benchmarks.dense_crf

321 x 321, 21 classes, 10 iterations, one CPU thread, DeepLab's parameters of `v1_largefov`: coloured rectangles with
noise, and nothing but noise, which fills the most lattice vertices that an image can. Exact mean field needs all pairs
of pixels, so the argmax of either is compared with it at 48 x 56.
`pip install pydensecrf2` builds the peer from source; without it, ours is measured alone.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from benchmarks.confusion_matrix import median_times
from segfolio.inference.dense_crf import CRF_PRESETS, dense_crf
from segfolio.speed.measure import peak_bytes
from tests.inference.test_dense_crf import agreement, exact, structured

try:
    from pydensecrf.densecrf import DenseCRF2D
except ImportError:
    DenseCRF2D = None

AIMS = {"time, structured": ">= 0.33", "time, noise": ">= 0.33", "agreement with exact": ">= 0.995"}
SIZE, CLASSES, PARAMETERS = 321, 21, CRF_PRESETS["v1_largefov"]


def ours(probabilities: Tensor, image: Tensor) -> Tensor:
    return dense_crf(probabilities, image, PARAMETERS, normalization="symmetric")  # as theirs


def theirs(probabilities: Tensor, image: Tensor) -> Tensor:
    classes, height, width = probabilities.shape
    crf = DenseCRF2D(width, height, classes)
    crf.setUnaryEnergy(np.ascontiguousarray(-probabilities.flatten(1).log().numpy()))
    crf.addPairwiseGaussian(sxy=PARAMETERS.pos_xy, compat=PARAMETERS.pos_w)
    pixels = np.ascontiguousarray(image.permute(1, 2, 0).numpy())
    crf.addPairwiseBilateral(sxy=PARAMETERS.bi_xy, srgb=PARAMETERS.bi_rgb, rgbim=pixels, compat=PARAMETERS.bi_w)
    return torch.from_numpy(np.array(crf.inference(10))).view(probabilities.shape)


def main() -> dict[str, float]:
    """How many times longer pydensecrf2 takes, and the part of pixels on which we agree with exact mean field."""
    torch.set_num_threads(1)
    probabilities, image, _ = structured(0, SIZE, SIZE, CLASSES)
    noise = torch.randint(256, image.shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    sides: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"ours": ours}
    if DenseCRF2D:
        sides["pydensecrf2"] = theirs
    else:
        print("pydensecrf2 is not installed: pip install pydensecrf2 (needs a C++ compiler)")

    ratios = {}
    for name, picture in {"structured": image, "noise": noise}.items():
        seconds = median_times(
            {side: lambda f=f, x=picture: f(probabilities, x) for side, f in sides.items()}, rounds=3
        )
        print(f"{name:12}" + "".join(f"{side:>14}{time:6.2f} s" for side, time in seconds.items()))
        if DenseCRF2D:
            ratios[f"time, {name}"] = seconds["pydensecrf2"] / seconds["ours"]
    print(
        f"{'memory':12}{peak_bytes(lambda: ours(probabilities, image)) / 1e6:10.0f} MB of ours at its peak, structured"
    )

    cases = [structured(seed, 48, 56)[:2] for seed in range(4)]
    truth = [exact(*case, PARAMETERS, "symmetric") for case in cases]
    found = {
        side: np.mean([agreement(f(*case), t) for case, t in zip(cases, truth, strict=True)])
        for side, f in sides.items()
    }
    print(f"{'exact argmax':12}" + "".join(f"{side:>14}{100 * part:6.2f} %" for side, part in found.items()))
    return {**ratios, "agreement with exact": float(found["ours"])}


if __name__ == "__main__":
    main()
