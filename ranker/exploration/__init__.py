"""Chance in a slate, and the probability with which each item came to its position."""
