"""From what a network says to what it predicts: pure functions of one image's outputs."""
