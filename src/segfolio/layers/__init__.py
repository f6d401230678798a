"""What several architectures share: parts of networks, and what loads their weights."""
