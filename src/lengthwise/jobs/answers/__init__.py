"""Answers out: a folder of formats.

```
contract.py   what a format and its sink promise
named.py      which format it is
encoding.py   what stands in an answer → one line of JSON
jsonl.py      an answer a line, in the words of this package
batch.py      an answer a line, as OpenAI's Batch API writes them
parquet.py    an answer a row of a Parquet file
sinks.py      lines → files that are whole or not there
```

The line that `encode` gives is what the journal keeps: it is made once, when the answer is there, and files are
assembled from such lines alone.
"""

from lengthwise.jobs.answers.contract import AnswerFormat, AnswerSink
from lengthwise.jobs.answers.named import make_format

__all__ = ["AnswerFormat", "AnswerSink", "make_format"]
