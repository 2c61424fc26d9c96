"""The sandbox server: Jupyter kernels behind HTTP, with a session registry in Redis."""
