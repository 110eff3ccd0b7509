"""What is left of an answer, from what is written so far."""
