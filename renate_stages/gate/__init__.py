"""The gate: decide whether an update's model may replace the champion, or its parent's model.

`challenge` measures both models on the same holdouts, `figures` computes the figures for the rules
in `export.promote`, and `verdict` applies the rules. Only `challenge` needs torch.
"""
