"""From feature values to scores, relevance and contributions."""
