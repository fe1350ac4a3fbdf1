"""The python handler: the process in a sandbox that runs a function's calls."""
