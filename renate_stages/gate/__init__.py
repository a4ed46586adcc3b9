"""The gate: whether an update's model may take the champion's place.

`rules` reads `export.promote`, `challenge` measures both models on the same holdouts, `figures`
says what is ruled on, `verdict` what comes of it. No torch but in `challenge`.
"""
