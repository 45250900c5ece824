"""Between a server and its ranking workers. Not for callers."""
