"""Finds the faces that training uses, one module a source.

Each module gives `Face` records by split. Import the module that you need.
"""
