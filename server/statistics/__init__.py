"""What every ranking earned: figures by their definitions in docs/reference/metrics.md."""
