"""Published files brought here: transfer of one file, listing of a hub's set, what a file must look like, unpacking."""
