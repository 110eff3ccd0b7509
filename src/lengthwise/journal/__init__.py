"""What is finished of a job, on disk: `journal` holds the records, `files` how they are kept."""

from lengthwise.journal.files import sync_folder
from lengthwise.journal.journal import Fingerprint, Journal, fingerprint

__all__ = ["Fingerprint", "Journal", "fingerprint", "sync_folder"]
