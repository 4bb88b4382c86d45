"""Campaigns and reproductions: many runs and chapters, in processes of their own or on a cluster."""
