"""Several ways to answer the same requests with the same model, in turn: how fast each is, and what it wastes."""
