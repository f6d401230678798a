"""Results without training, as the ledger's tests have them."""

from tests.ledger.conftest import replicated

__all__ = ["replicated"]
