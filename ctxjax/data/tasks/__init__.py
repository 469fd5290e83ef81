"""Readers of the official files of tasks."""
