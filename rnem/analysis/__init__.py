"""The tables of the book, one file a question; each is computed once per run and kept."""
