"""Strategies of Avalanche as learners: `learner: Avalanche-EWC`, or `Avalanche-ER+LwF` for several.

    catalog    which there are, with their arguments; and which are refused, and why
    naming     the class of a name
    learner    one update of one, inside Lightning
    building   the strategy with its model, loss and plugins, and what survives the update
    examples   our stores as Avalanche's datasets
    model      the user's model as Avalanche calls it
    codec      what a strategy keeps, as tensors and JSON
    tables     the rows of examples among these
    patched    plugins with fixes

Avalanche itself comes in with `building`, when a training begins.
"""
