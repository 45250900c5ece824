"""What happened: accept, label, record, fold."""
