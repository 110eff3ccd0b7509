"""Files of prompts in, files of answers out.

```
options.py    what a job is asked to do
lines.py      a file → its lines, decoded; which format it has
values.py     one field of a JSON row, checked
prompts.py    a JSON row → its prompt
rows.py       a line → a request, or the error that stands in its place
ids.py        every row gets an id of its own
answers.py    a completion → an answer line; the answers file, whole or not at all
job.py        resume → run → record → assemble
```
"""

from lengthwise.jobs.job import Job, JobResult
from lengthwise.jobs.options import JobOptions
from lengthwise.jobs.rows import Row, read_rows

__all__ = ["Job", "JobOptions", "JobResult", "Row", "read_rows"]
