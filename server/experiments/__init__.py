"""Experiments: who gets what, what came of it, and what may be said about it."""
