"""What a run records: one SQLite file, mergeable histograms, verdicts."""
