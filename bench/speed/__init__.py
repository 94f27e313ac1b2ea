"""Rates, seconds, memory."""
