"""Predictors: one file each. This module stays empty, so that each loads only what it needs."""
