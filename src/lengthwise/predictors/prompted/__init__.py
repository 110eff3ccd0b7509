"""A language model that is asked how long its answer will be: PO and PiA."""
