"""The truth table, run against anything: its cases, what they need set up, and how each came out."""
