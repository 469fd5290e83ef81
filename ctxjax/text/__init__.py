"""Text to pieces with character offsets: WordPiece, words, characters, sentences. No JAX here."""
