"""``lightball reproduce``: the paper's experiments on real models and data."""
