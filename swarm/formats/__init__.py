"""Pure text <-> records: the small files that this family of tools exchanges."""
