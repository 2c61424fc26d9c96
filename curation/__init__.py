"""Raw questions become training data: one YAML file, a list of steps, and a folder that shows what each kept and dropped."""
