"""Words, characters and structure of the prompt: the text predictor."""
