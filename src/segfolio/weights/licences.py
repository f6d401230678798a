"""Licences of released weights that not everybody may use."""

import warnings

DINOV3 = "the DINOv3 License, which is passed on with them and does not allow every use, military ones for one"


def tell_licence(source: str, licence: str) -> None:
    """Warn, once for a loading, that weights are restricted; `licence` is its name and what it does not allow."""
    warnings.warn(
        f"{source}: weights of this release, and what is trained from them, are under {licence}", stacklevel=3
    )
