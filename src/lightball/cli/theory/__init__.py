"""``lightball theory``: what the paper proves, measured in seconds."""
