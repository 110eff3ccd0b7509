"""What the same or a similar prompt, user or template took before."""
