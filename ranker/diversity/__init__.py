"""How alike items are, and how to choose a slate that is relevant and varied."""
