"""Calls to the functions and targets of a job: concurrency, rate limit, backoff, circuit breaker."""
