"""Conformance tests of components, for those of this package and for plug-ins.

Each function takes one object and raises an AssertionError that says in words
what it lacks or breaks.
"""
