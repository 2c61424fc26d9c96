"""How the tables are read in which benchmarks are published."""
