"""One section of the report a file: what it gathers from a run for its template."""
