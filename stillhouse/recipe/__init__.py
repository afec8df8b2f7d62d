"""Recipes: compositions that make one method out of the shared parts.

May import every room below it. A recipe trains nothing itself and holds no rule of its own.
"""
