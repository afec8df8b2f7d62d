"""Tasks and their examples: loading, splitting, tokenising and batching.

A task is two sets of texts with labels (`task.py`); its sources are GLUE (`glue.py`), the user's
tables (`table.py`), datasets of the Hugging Face hub (`hub.py`) and the docstrings of Python itself
(`embedded.py`). May import `space` and `errors`.
"""
