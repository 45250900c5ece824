"""Generated from `protos/rankloop/worker/v1`."""
