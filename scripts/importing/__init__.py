"""Bringing in what was recorded elsewhere, through the public API."""
