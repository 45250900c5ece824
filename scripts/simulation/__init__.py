"""People with known tastes who use a running server. How they behave is written in docs/explanation/simulation.md."""

import os

# The demo starts its training while it has a channel open. The child is another program from its first moment on, so nothing of gRPC has to
# survive the fork; gRPC's attempt to do so ends the child now and then. It decides when it is imported, which is after this.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
