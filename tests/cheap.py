"""Passwords that cost nothing, for tests that are about something else."""

import argon2

CHEAP = argon2.Parameters(argon2.Type.ID, 19, 16, 32, time_cost=1, memory_cost=8, parallelism=1)
