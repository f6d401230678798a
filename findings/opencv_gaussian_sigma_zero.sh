#!/usr/bin/env bash
# opencv-python-headless==5.0.0.93, numpy==2.4.6 (the same with opencv-python-headless==4.13.0.92)
#
# Behaviour: cv2.GaussianBlur(image, (5, 5), 0) is documented to use sigma = 0.3 ((ksize - 1) / 2 - 1) + 0.8, which is 1.1.
# For kernels of 3, 5 and 7 it takes fixed binomial weights instead (1 4 6 4 1 of 5), so that giving the documented
# sigma explicitly blurs otherwise. Recipes that say "a 5 x 5 Gaussian, sigma 0" (PSPNet's released augmentation) are
# therefore not reproduced by another library with sigma 1.1. From 9 on, the formula holds.
#
# Output seen:
#   5: weights of sigma 0 [0.0625 0.25 0.375 0.25 0.0625], of sigma 1.1 [0.0708 0.2445 0.3695 0.2445 0.0708]
#   levels that differ between sigma 0 and the formula: 3: 83 %, 5: 61 %, 7: 50 %, 9: 0 %
set -euo pipefail
PINNED="opencv-python-headless==5.0.0.93 numpy==2.4.6"
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet $PINNED
"$folder/venv/bin/python" - <<'P'
import cv2
import numpy as np

image = np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8)
kernel = {s: np.round(cv2.getGaussianKernel(5, s).ravel(), 4) for s in (0, 1.1)}
print(f"5: weights of sigma 0 {kernel[0]}, of sigma 1.1 {kernel[1.1]}")
differ = {}
for size in (3, 5, 7, 9):
    formula = 0.3 * ((size - 1) / 2 - 1) + 0.8
    zero, given = (cv2.GaussianBlur(image, (size, size), sigma) for sigma in (0, formula))
    differ[size] = round(100 * float((zero != given).mean()))
print("levels that differ between sigma 0 and the formula: " + ", ".join(f"{k}: {v} %" for k, v in differ.items()))
same = np.array_equal(kernel[0], [0.0625, 0.25, 0.375, 0.25, 0.0625])
raise SystemExit(not (same and min(differ[k] for k in (3, 5, 7)) > 20 and differ[9] == 0))
P
