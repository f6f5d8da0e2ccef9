"""The report: a fold over the record, and its renderings."""
