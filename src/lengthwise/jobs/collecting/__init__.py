"""Prompts in, the lengths of several answers to each out: what predictors are trained on.

```
options.py   what is collected: temperatures, samples
flow.py      a prompt → as many requests as samples are wanted of it
lengths.py   their answers → one row a prompt
job.py       the job that does both
tally.py     what stands in a file of lengths
```
"""

from lengthwise.jobs.collecting.job import CollectJob
from lengthwise.jobs.collecting.options import CollectOptions

__all__ = ["CollectJob", "CollectOptions"]
