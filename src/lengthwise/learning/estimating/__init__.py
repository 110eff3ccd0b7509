"""What a job will take before it runs.

```
totals.py   estimates → all tokens together, with an interval
level.py    how far a predictor may be off throughout
jobs.py     requests, chunk by chunk → what is known of the whole job
prices.py   tokens → money, by a table that the user gives
timing.py   lengths and the cost of a step → seconds
```
"""
