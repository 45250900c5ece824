"""What a ranking worker knows: items in memory, users read on demand."""
