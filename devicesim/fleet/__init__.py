"""The fleet: its file, its pacing, its devices and the runner."""
