"""Checkpoints of networks and runs; knows no trainer."""
