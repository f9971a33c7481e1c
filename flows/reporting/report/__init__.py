"""The report of a publication: one HTML file that opens anywhere, offline."""
