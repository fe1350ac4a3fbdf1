"""Serves calls on the process's standard streams: what the python handler starts in a sandbox, with this folder beside it."""

import sys

from freshet._worker.session import CODE, main

if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:2] or [CODE]))
