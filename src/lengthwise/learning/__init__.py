"""What is learned from: prompts with the lengths of their answers."""
