"""The gate: whether an update's model may take the champion's place.

`rules` reads `export.promote`, `challenge` measures both models on the same holdouts, `verdict`
holds one against the other. No torch but in `challenge`.
"""
