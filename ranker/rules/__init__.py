"""Business rules: what holds in a slate whatever a model says."""
