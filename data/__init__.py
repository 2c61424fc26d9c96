"""Data preparation: the toy task, readers and checks of the published files. See data/README.md."""
