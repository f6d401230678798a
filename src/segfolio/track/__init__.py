"""`segfolio track`: objects that are prompted in frames of a video, followed through all of it."""
