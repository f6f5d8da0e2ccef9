"""Limits of this machine that a run meets first."""

import resource


def raise_open_files(needed: int) -> str | None:
    """Raise the limit of open files to what is needed, if the system allows; else say what is missing, in one line."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < needed:
        allowed = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
        if allowed < needed:
            return f"{needed} open files may be needed, the limit is {hard}; raise it: ulimit -Hn {needed}"
    return None
