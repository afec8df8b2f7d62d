"""Students that ship: Hugging Face checkpoints with their measures and a model card.

May import `distill`, `device`, `model`, `data`, `space` and `errors`.
"""
