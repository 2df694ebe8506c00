"""Telling people of nights: messages, channels, and the loop that delivers until they arrive."""
