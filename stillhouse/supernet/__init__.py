"""Supernets: weights that many students share, and the views that make a student of them.

May import `distill`, `model`, `data`, `space` and `errors`; knows no search and no run directory.
"""
