"""What a dataset's files tell before training: problems, headers, fingerprints, and what is remembered of them."""
