"""LightningModules, one per output contract."""

from segfolio.families.encoder_decoder import EncoderDecoder

__all__ = ["EncoderDecoder"]
