"""Records out of a running server, into files."""
