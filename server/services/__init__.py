"""The public services: each decodes, asks, encodes."""
