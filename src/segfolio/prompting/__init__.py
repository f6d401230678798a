"""`segfolio prompt`: masks of an image by points and boxes, or of everything in it."""
