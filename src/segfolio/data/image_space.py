"""`ImageSpace`: what the images of a dataset are made of, and what their values mean."""

from dataclasses import dataclass
from typing import Literal, get_args

from torch import Tensor

from segfolio.errors import SegfolioError
from segfolio.words import counted

Dtype = Literal["uint8", "uint16", "float32"]

_RANGES = {"uint8": (0.0, 255.0), "uint16": (0.0, 65535.0), "float32": (0.0, 1.0)}


@dataclass(frozen=True)
class ImageSpace:
    """Channels, type and range of the values of a dataset's images, which are `[channels, H, W]` of `dtype`.

    Mean and standard deviation of a network's input are in units of this range: 0 is its lower end, 1 its upper.
    Values outside of it are as good as any; pictures show them black or white.

    Args:
        channels: 1 is grey, 3 is RGB; of any other number it is the dataset that knows what they are.
        dtype: of the values; float64 and float16 are read as float32.
        value_range: the values that count as 0 and as 1; if not given, 0 to 255, to 65535, or to 1.0.
        shown: the channels, counted from 0, that pictures show as red, green and blue, or the one that they show in
            grey; if not given, the first three, or the first.

    Raises:
        SegfolioError: no channel, an unknown type, a range without extent, a channel that there is not.
    """

    channels: int = 3
    dtype: Dtype = "uint8"
    value_range: tuple[float, ...] = ()
    shown: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.channels < 1:
            raise SegfolioError(f"channels is {self.channels}; give 1 for grey, 3 for RGB, or the number of bands")
        if self.dtype not in _RANGES:
            raise SegfolioError(f"dtype is {self.dtype!r}, expected one of {', '.join(get_args(Dtype))}")
        _set = object.__setattr__  # frozen; lists become tuples, defaults follow the others
        _set(self, "value_range", tuple(map(float, self.value_range or _RANGES[self.dtype])))
        _set(self, "shown", tuple(self.shown or ((0, 1, 2) if self.channels >= 3 else (0,))))
        if len(self.value_range) != 2 or not self.value_range[0] < self.value_range[1]:
            raise SegfolioError(f"value_range is {list(self.value_range)}; give the values that count as 0 and as 1")
        if len(self.shown) not in (1, 3) or not all(0 <= c < self.channels for c in self.shown):
            raise SegfolioError(
                f"shown is {list(self.shown)}; give the channels that pictures show as red, green and blue, or one for "
                f"grey, of 0 to {self.channels - 1}"
            )

    @property
    def words(self) -> str:
        low, high = self.value_range
        return f"{counted(self.channels, 'channel')} of {self.dtype} in {low:g} to {high:g}"

    @property
    def most(self) -> float | None:
        """The largest value of the type, in units of the range; None of floats."""
        largest, (low, high) = {"uint8": 255, "uint16": 65535}.get(self.dtype), self.value_range
        return None if largest is None else (largest - low) / (high - low)

    def misfit(self, channels: int, dtype: str) -> str | None:
        """What an image file that holds this cannot be read for, to be said after "the image is"; None if it can.

        Grey is repeated for RGB, colour becomes grey, and alpha (the second or fourth channel) is dropped; other
        numbers of channels have to agree.
        """
        found = "float32" if dtype in ("float16", "float64") else dtype
        if found != self.dtype:
            say = f"say dtype: {found} of the dataset, or " if found in _RANGES else ""
            return f"of {dtype} values, expected {self.dtype} ({say}scale and convert them)"
        if channels != self.channels and not (self.channels in (1, 3) and channels <= 4):
            return f"of {counted(channels, 'channel')}, expected {self.channels} (say channels: {channels})"
        return None

    def picture(self, image: Tensor) -> Tensor:
        """`[C, H, W]` of the dataset's values, or of floats between them, to `[3, H, W]` uint8 for the eye."""
        chosen, (low, high) = image[list(self.shown)], self.value_range
        if (low, high) != _RANGES["uint8"]:
            chosen = (chosen.float() - low) * (255 / (high - low))
        return chosen.round().clamp(0, 255).byte().expand(3, -1, -1)


RGB, GREY = ImageSpace(3), ImageSpace(1)

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
"""Of its images, in units of their range."""
