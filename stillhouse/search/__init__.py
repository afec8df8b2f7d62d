"""Search: the strategy protocol, Optuna's samplers behind it, the trial record and the loop.

May import `space` and `errors` (and the rooms between them, which it does not need); knows no
torch and no training.
"""
