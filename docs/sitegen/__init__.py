"""What builds the site besides MkDocs: formulas, docstrings, pages of cells and drawings."""
