"""`rankloop experiments`: sizes, and what the statistics do on data whose truth is known."""
