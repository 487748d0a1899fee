"""What the site needs besides MkDocs: formulas, docstrings, cell pages and drawings."""
