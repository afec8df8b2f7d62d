"""How good a model's answers are: metrics of tasks, loyalty to a teacher, and their intervals.

May import `export`, `supernet`, `distill`, `device`, `model`, `data`, `space` and `errors`.
"""
