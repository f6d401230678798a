"""Licences of released weights that not everybody may use."""

import warnings


def tell_licence(source: str, licence: str) -> None:
    """Warn, once for a loading, that weights are restricted; `licence` is its name and what it does not allow."""
    warnings.warn(
        f"{source}: weights of this release, and what is trained from them, are under {licence}", stacklevel=3
    )
