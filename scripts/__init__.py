"""What people run."""

import os

# Whatever starts here may start other programs while it has channels or servers open (the stack its processes, the demo its training). A
# child is another program from its first moment on, so nothing of gRPC has to survive the fork, and gRPC's attempt to make it survive ends
# the child now and then. gRPC decides when it is imported, which is after this.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
