"""Schedules: when studies run again, the scheduler process, and the judgement of nights."""
