"""Several predictors, put together."""
