"""Certificates: device identities, the shared CA that mints them, and their profile."""
