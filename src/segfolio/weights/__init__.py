"""Pretrained weights: where they are had from, how their names become ours, loading that leaves nothing out."""
