"""What the model sees: a schema of named features, and their extraction from a request, the item state and the user's history."""
