"""`segfolio download`: a dataset's files from its publisher, whole and as published, or not at all."""
