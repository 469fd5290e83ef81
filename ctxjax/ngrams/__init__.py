"""n-gram language models: counts, smoothing, queries and the ARPA format. Plain NumPy, no gradient."""
