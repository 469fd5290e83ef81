"""What rows there are: one file a source, each exporting Source and example()."""
