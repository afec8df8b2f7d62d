"""Tasks and their examples: loading, splitting, tokenising and batching.

A task is two sets of texts with labels, of words with tags, or of questions on passages (`task.py`,
which files and names there are in `task_names.py`). Its sources are GLUE (`glue.py`), SQuAD
(`squad.py`), the user's tables (`table.py`) and CoNLL files (`tag_files.py`), datasets of the
Hugging Face hub (`hub.py`) and the docstrings of Python itself (`embedded.py`). May import `space`
and `errors`.
"""
