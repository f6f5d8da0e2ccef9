"""The control plane as a client: setup, JITR activation, verification and teardown of a fleet's accounts."""
