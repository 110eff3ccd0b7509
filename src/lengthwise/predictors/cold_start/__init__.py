"""Learning from the answers of the job itself."""
