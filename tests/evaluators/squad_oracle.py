"""SQuAD as published, one piece and one span after the other: rows of a question, and what scores of them tell."""

import math
from types import SimpleNamespace


def words_of(text):
    words, of_char, apart = [], [], True
    for char in text:
        if char in (" ", "\t", "\r", "\n") or ord(char) == 0x202F:
            apart = True
        else:
            words = [*words, char] if apart else [*words[:-1], words[-1] + char]
            apart = False
        of_char.append(len(words) - 1)
    return words, of_char


def windows_of(count, room, stride):
    found, begin = [], 0
    while begin < count:
        size = count - begin
        if size > room:
            size = room
        found.append((begin, size))
        if begin + size == count:
            break
        begin += min(size, stride)
    return found


def window_of_most_context(windows, piece):
    best, chosen = None, None
    for number, (first, size) in enumerate(windows):
        if first <= piece < first + size:
            score = min(piece - first, first + size - 1 - piece) + 0.01 * size
            if best is None or score > best:
                best, chosen = score, number
    return chosen


def tokenize(tokenizer, text):
    return [tokenizer.pieces[piece] for piece in tokenizer.encode(text).ids]


def rows(question, tokenizer, length, stride, max_query, training):
    """Rows of a question, or None where training passes over it; each word is cut into pieces by itself."""
    words, of_char = words_of(question.context)
    pieces, word_of_piece, piece_of_word = [], [], []
    for number, word in enumerate(words):
        piece_of_word.append(len(pieces))
        for piece in tokenize(tokenizer, word):
            pieces.append(piece)
            word_of_piece.append(number)
    span = None
    if training and question.answers:
        text, start = question.answers[0]
        if start + len(text) > len(of_char):
            return None
        first, last = of_char[start], of_char[start + len(text) - 1]
        if " ".join(words[first : last + 1]).find(" ".join(text.split())) < 0:
            return None
        begin = piece_of_word[first]
        end = piece_of_word[last + 1] - 1 if last < len(words) - 1 else len(pieces) - 1
        span = improved(pieces, begin, end, tokenize(tokenizer, text))
    query = tokenize(tokenizer, question.question)[:max_query]
    windows = windows_of(len(pieces), length - len(query) - 3, stride)
    found = []
    for number, (first, size) in enumerate(windows):
        tokens = ["[CLS]", *query, "[SEP]"]
        word_at, most_at = {}, {}
        segments = [0] * len(tokens)
        for piece in range(first, first + size):
            word_at[len(tokens)] = word_of_piece[piece]
            most_at[len(tokens)] = window_of_most_context(windows, piece) == number
            tokens.append(pieces[piece])
            segments.append(1)
        tokens.append("[SEP]")
        segments.append(1)
        answer = (0, 0)
        if span and span[0] >= first and span[1] <= first + size - 1:
            answer = tuple(place - first + len(query) + 2 for place in span)
        row = {"tokens": tokens, "segments": segments, "word_at": word_at, "most_at": most_at, "answer": answer}
        found.append(SimpleNamespace(**row, words=words))
    return found


def improved(pieces, begin, end, answer):
    for start in range(begin, end + 1):
        for stop in range(end, start - 1, -1):
            if " ".join(pieces[start : stop + 1]) == " ".join(answer):
                return start, stop
    return begin, end


def tell(question_rows, scores, version, n_best, max_answer, project):
    """(text, [(text, probability, start, end)], odds of no answer) of one question."""
    spans, null = [], None
    for row, score in zip(question_rows, scores):
        starts, ends = ([float(pair[column]) for pair in score] for column in (0, 1))
        if null is None or starts[0] + ends[0] < sum(null):
            null = (starts[0], ends[0])
        best = [sorted(range(len(some)), key=lambda place: (-some[place], place))[:n_best] for some in (starts, ends)]
        for start in best[0]:
            for end in best[1]:
                inside = start in row.word_at and end in row.word_at and row.most_at[start]
                if inside and start <= end < start + max_answer:
                    pieces = " ".join(row.tokens[start : end + 1]).replace(" ##", "").replace("##", "").strip()
                    words = " ".join(row.words[row.word_at[start] : row.word_at[end] + 1])
                    spans.append((starts[start], ends[end], " ".join(pieces.split()), words))
    if version == "2.0":
        spans.append((*null, "", ""))
    spans.sort(key=lambda span: span[0] + span[1], reverse=True)
    best, seen = [], set()
    for start, end, pieces, words in spans:
        if len(best) == n_best:
            break
        text = project(pieces, words) if pieces else ""
        if text not in seen:
            best.append((text, start, end))
            seen.add(text)
    if version == "2.0" and "" not in seen:
        best.append(("", *null))
    best = best or [("empty", 0.0, 0.0)]
    total = sum(math.exp(start + end) for _, start, end in best)
    told = [(text, math.exp(start + end) / total, start, end) for text, start, end in best]
    named = [one for one in best if one[0]] or [("empty", 0.0, 0.0)]
    return named[0][0], told, sum(null) - named[0][1] - named[0][2] if version == "2.0" else 0.0
