"""Versions of the ranker: what a model consists of, where it is kept, and which one serves."""
