"""Tells `freshet deploy` what a file of functions is, without running it: its settings, and the modules that it needs."""

import sys

from freshet._deploy import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
