"""What is finished of a job, on disk: `journal` holds the records, `lines` how they are written, `index` where they
stand, `files` how it is kept."""

from lengthwise.journal.files import sync_folder
from lengthwise.journal.journal import Journal, replacement_of
from lengthwise.journal.lines import Fingerprint, Record

__all__ = ["Fingerprint", "Journal", "Record", "replacement_of", "sync_folder"]
