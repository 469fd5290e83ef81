"""From a record to an example: masking, characters."""
