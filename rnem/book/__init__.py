"""Chapters and their notebooks: executed, checked for being up to date, and shown by Sphinx."""
