"""Whether the data can be trusted: what is wrong with what was sent, named, counted, with examples and what to do."""
