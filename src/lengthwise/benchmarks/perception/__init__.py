"""The leader board: every kind of predictor trained on one set and scored on another, on equal terms."""
