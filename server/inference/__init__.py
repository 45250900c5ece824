"""Statistics of experiments, on numpy and scipy: plain functions over per-user sums, each with its source and equation."""
