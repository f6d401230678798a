"""`segfolio speed`: how long networks take, side by side, and what is measured with the same clock."""
