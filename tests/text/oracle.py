"""The published rules of BERT's tokenisation, written down again one after the other, slowly and without offsets."""

import unicodedata

CJK = [
    range(0x4E00, 0xA000),
    range(0x3400, 0x4DC0),
    range(0x20000, 0x2A6E0),
    range(0x2A700, 0x2B740),
    range(0x2B740, 0x2B820),
    range(0x2B820, 0x2CEB0),
    range(0xF900, 0xFB00),
    range(0x2F800, 0x2FA20),
]


def basic_tokens(text: str, lowercase: bool) -> list[str]:
    # 1. drop NUL, U+FFFD and control characters other than tab, newline, return; blanks become spaces
    cleaned = ""
    for char in text:
        category = unicodedata.category(char)
        if char in "\t\n\r" or category == "Zs":
            cleaned += " "
        elif ord(char) not in (0, 0xFFFD) and category not in ("Cc", "Cf"):
            cleaned += char
    # 2. spaces round ideographs
    spaced = "".join(f" {char} " if any(ord(char) in block for block in CJK) else char for char in cleaned)
    # 3. split at whitespace; lower-case and strip accents; 4. split at punctuation
    tokens = []
    for chunk in spaced.split():
        if lowercase:
            chunk = "".join(c for c in unicodedata.normalize("NFD", chunk.lower()) if unicodedata.category(c) != "Mn")
        apart = ""
        for char in chunk:
            code = ord(char)
            symbol = 33 <= code <= 47 or 58 <= code <= 64 or 91 <= code <= 96 or 123 <= code <= 126
            apart += f" {char} " if symbol or unicodedata.category(char)[0] == "P" else char
        tokens += apart.split()
    return tokens


def word_pieces(token: str, vocabulary: set[str], limit: int = 200) -> list[str]:
    if len(token) > limit:
        return ["[UNK]"]
    pieces, rest = [], token
    while rest:
        mark = "##" if pieces else ""
        fits = [rest[:n] for n in range(len(rest), 0, -1) if mark + rest[:n] in vocabulary]
        if not fits:
            return ["[UNK]"]
        pieces.append(mark + fits[0])
        rest = rest[len(fits[0]) :]
    return pieces


def tokenize(text: str, vocabulary: set[str], lowercase: bool, limit: int = 200) -> list[str]:
    return [piece for token in basic_tokens(text, lowercase) for piece in word_pieces(token, vocabulary, limit)]
