"""The stages of an update: each reads its inputs, calls one service, and writes its outputs."""
