"""Files of prompts in, files of answers out.

```
options.py      what a job is asked to do
fingerprint.py  what determines its answers
formats.py      the formats of prompts and answers, by name
streams.py      a file or standard input → its bytes, decompressed and hashed
lines.py        bytes → lines, decoded
sources.py      where prompts come from: a file of lines, standard input, a Parquet file (parquet.py)
fields.py       a JSON object → a request; api.py and batch.py: a call of the OpenAI API → a request
values.py       one field, checked; prompts.py: the fields that make a prompt
rows.py         a line → a request, or the error that stands in its place
ids.py          every row gets an id of its own
flow.py         rows → pipeline → answers, with those in memory that are on their way
answers/        a completion → an answer line; lines → the files of a format
outputs.py      files that are written: checked before, put into their places in one step
places.py       which files are a job's own
completed.py    files that grow as answers are completed
job.py          resume → run → record → assemble
passing.py      the same to a stream, with nothing kept
collecting/     a job whose answers are the lengths of several answers to each prompt
```
"""

from lengthwise.jobs.job import Job, JobResult
from lengthwise.jobs.options import JobOptions
from lengthwise.jobs.passing import PassingJob
from lengthwise.jobs.rows import Row

__all__ = ["Job", "JobOptions", "JobResult", "PassingJob", "Row"]
