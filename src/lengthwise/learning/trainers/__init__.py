"""One file a kind of predictor: `train(data, target, config)`. `learning/training.py` finds them."""
