"""Engines that answer in place of our own backbone: servers in processes, and environments, of their own."""
