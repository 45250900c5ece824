"""The front door: services, experiments, statistics."""
