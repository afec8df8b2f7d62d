"""Students that ship: Hugging Face checkpoints and ONNX folders, with measures and cards.

May import `distill`, `device`, `model`, `data`, `space`, `files` and `errors`.
"""
