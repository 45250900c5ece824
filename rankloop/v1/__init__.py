"""The public contract, generated from `protos/rankloop/v1`."""
