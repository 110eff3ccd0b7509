"""The paper's tables: predictors and scheduling on recorded lengths, and on a model that is really run."""
