"""The recipes: one folder per model, one complete experiment per YAML file."""
