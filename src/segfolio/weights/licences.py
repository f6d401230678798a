"""Licences of released weights that not everybody may use."""

import warnings

from timm.models import get_pretrained_cfg, list_pretrained

DINOV3 = "the DINOv3 License, which is passed on with them and does not allow every use, military ones for one"
NVIDIA = "the NVIDIA Source Code License, which allows no commercial use"
_NAMED = {
    "dinov3-license": DINOV3,
    "cc-by-nc-4.0": "CC BY-NC 4.0, which allows no commercial use",
    "fair-noncommercial-research-license": "the FAIR Noncommercial Research License, which allows research alone",
}
_FREE = {"apache-2.0", "mit", "bsd-3-clause", "cc-by-4.0", "unknown"}


def tell_licence(source: str, licence: str) -> None:
    """Warn, once for a loading, that weights are restricted; `licence` is its name and what it does not allow."""
    warnings.warn(
        f"{source}: weights of this release, and what is trained from them, are under {licence}", stacklevel=3
    )


def licence_of(backbone: str, weights: str) -> str | None:
    """The licence of weights of a backbone, in words; None where everybody may use them, or it is not known.

    Args:
        backbone: timm's name of it, or segmentation_models.pytorch's.
        weights: a tag of timm's, which says the licence of each, or of that library; or a file, of which the names
            alone tell.
    """
    if backbone.startswith("mit_b"):
        return NVIDIA
    name = f"{backbone}.{weights}"
    if name in list_pretrained(f"{backbone}.*") and (licence := get_pretrained_cfg(name).license):
        own = f"a licence of their own, {licence!r} as timm names it, which may not allow every use"
        return None if licence in _FREE else _NAMED.get(licence, own)
    return DINOV3 if "dinov3" in name else None
