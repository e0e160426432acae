"""Where local records live: one module per kind of target."""
