"""What is kept: one contract, and what fulfils it."""
