"""What every process stands on: settings, MongoDB, gRPC plumbing, telemetry. Knows nothing of recommendations."""
