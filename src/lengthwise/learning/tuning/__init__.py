"""Teaching a language model to foretell the length of its answers: instruction tuning and the [LEN] token."""
