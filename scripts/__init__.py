"""Shell programs; what was Python here has moved.

Without this file, a package of the same name in some wheels would be found before the files that say where.
"""
