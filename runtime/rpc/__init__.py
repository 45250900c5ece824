"""gRPC plumbing: the server, the layers around every handler, and the one table of status codes."""
