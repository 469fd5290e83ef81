"""One training signal a file, each exporting Objective and example(); never imports a model."""
