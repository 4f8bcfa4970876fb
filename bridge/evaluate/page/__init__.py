"""A report, or a comparison of two, as one HTML file; films stay where they are, beside it."""
