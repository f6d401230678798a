"""Experiments side by side, from what their runs recorded."""
