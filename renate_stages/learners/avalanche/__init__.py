"""Avalanche's strategies as learners: `learner: Avalanche-EWC`, or `Avalanche-ER+LwF` for several.

    catalog    supported strategies with their arguments, and unsupported ones with the reason
    naming     make the learner class for a name
    learner    run one update of a strategy inside Lightning
    building   build the strategy with its model, loss and plugins; encode and restore its state
    examples   present our stores as Avalanche's datasets
    model      adapt the user's model to Avalanche's calls
    codec      encode a strategy's state as tensors and JSON
    tables     renumber the rows of examples in that state
    patched    plugins with fixes

Avalanche is imported only by `building`, when training begins.
"""
