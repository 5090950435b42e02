"""How many files and connections a process may have open."""

import resource

FILES_WANTED = 65_536


def allow_many_files() -> None:
    """Raise the soft limit: a thousand streams need more file descriptors than the usual 1,024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES_WANTED if hard == resource.RLIM_INFINITY else min(FILES_WANTED, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
