"""Deliveries: takes webhooks, verifies them, stores them durably, and only then answers."""
