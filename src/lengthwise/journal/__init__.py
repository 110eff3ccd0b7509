"""What is finished of a job, on disk: `journal` holds the records, `index` where they stand, `files` how it is kept."""

from lengthwise.journal.files import sync_folder
from lengthwise.journal.journal import Fingerprint, Journal, Record, replacement_of

__all__ = ["Fingerprint", "Journal", "Record", "replacement_of", "sync_folder"]
