"""A run as a value: its settings, its directory, its progress.

May import every room below it; knows no recipe and no command line.
"""
