"""Strategies of Avalanche as learners: `learner: Avalanche-EWC`, or `Avalanche-ER+LwF` for several.

`catalog` says which there are, `learner` runs one update of one inside Lightning, `examples` hands
our stores over as Avalanche's datasets, `codec` turns what a strategy keeps into tensors and JSON,
`mended` holds the plugins that need mending. Only `catalog` can be imported without avalanche-lib.
"""
