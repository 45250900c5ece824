"""The conservation harness: what was acknowledged is kept, what is counted is right, whatever is killed, stopped or cut."""
