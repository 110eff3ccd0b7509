"""Policies: what starts, in which order, in batches of which size, with which caps. Pure: no I/O, no clock."""
