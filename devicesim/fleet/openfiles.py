"""The limit of open files of this process: a device is a descriptor, and systems give a process few to begin with."""

import resource


def allow_open_files(wanted: int) -> int:
    """Raise the limit to ``wanted``, as far as the system allows, and never lower it; what of it is allowed now."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return wanted
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if allowed == soft:
        return soft
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    except (OSError, ValueError):  # macOS says that there is no limit, and keeps one
        return soft
    return allowed
