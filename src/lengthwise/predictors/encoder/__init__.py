"""A fine-tuned small language model that reads the prompt."""
