"""How the ranker learns: data, split, training, evaluation, gate."""
