#!/usr/bin/env bash
# opencv-python-headless==5.0.0.93, numpy==2.4.6 (the same with opencv-python-headless==4.13.0.92)
#
# Behaviour: cv2.imdecode(..., IMREAD_GRAYSCALE) of an RGB PNG gives another grey where the file has an sRGB chunk than
# where it has none, for the same stored pixels, and neither is the grey that cv2.cvtColor gives of the decoded colours.
# The conversion is libpng's, in linear light where the file says its gamma. Whoever reads masks or grey images from
# colour PNGs gets values that depend on the program that wrote the file: editors add the chunk, exporters do not.
#
# Output seen:
#   pixel (95, 130, 194): with sRGB chunk 131, without 126, cvtColor 127
set -euo pipefail
PINNED="opencv-python-headless==5.0.0.93 numpy==2.4.6"
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet $PINNED
"$folder/venv/bin/python" - <<'P'
import struct
import zlib

import cv2
import numpy as np

PIXEL = (95, 130, 194)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(*extra: bytes) -> np.ndarray:
    rows = (b"\0" + bytes(PIXEL) * 4) * 4
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 4, 8, 2, 0, 0, 0))
    whole = b"\x89PNG\r\n\x1a\n" + header + b"".join(extra) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return np.frombuffer(whole, np.uint8)


tagged, plain = png(chunk(b"sRGB", b"\0")), png()
colours = [cv2.imdecode(file, cv2.IMREAD_COLOR) for file in (tagged, plain)]
assert (colours[0] == colours[1]).all(), "the stored colours are the same"
grey = [int(cv2.imdecode(file, cv2.IMREAD_GRAYSCALE)[0, 0]) for file in (tagged, plain)]
own = int(cv2.cvtColor(colours[0], cv2.COLOR_BGR2GRAY)[0, 0])
print(f"pixel {PIXEL}: with sRGB chunk {grey[0]}, without {grey[1]}, cvtColor {own}")
raise SystemExit((grey, own) != ([131, 126], 127))
P
