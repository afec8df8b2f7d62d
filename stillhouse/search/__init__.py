"""Search: the strategy protocol, the strategies behind it, the trial record, the loop, the replay.

May import `space` and `errors` (and the rooms between them, which it does not need); knows no
torch, but for the controller's regressor in `reward_lstm`, and no training.
"""
