"""Tests of what needs no worker: python3 -m unittest, in this folder's parent."""
