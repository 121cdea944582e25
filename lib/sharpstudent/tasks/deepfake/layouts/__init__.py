"""Finds the clips in what users have on disk, one module a layout.

Each module turns a folder into `RawClip`s. Import the module that you need.
"""
