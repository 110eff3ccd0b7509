"""Discrete events: what a policy would do for a log of requests, on an engine that only counts."""
