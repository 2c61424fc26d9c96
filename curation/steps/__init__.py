"""Steps by name: a file each, with `SETTINGS` and `async def apply(work)`; `gather(work)`, too, where models are asked."""
