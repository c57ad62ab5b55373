"""Columns of small sets of texts, as sets in the hub's layout have them."""


def reviews(n, first=0, labelled=True):
    return {
        "idx": list(range(n)),
        "mood": [i % 2 if labelled else -1 for i in range(n)],
        "sentence": [f"review {first + i}" for i in range(n)],
    }


def trec(n):
    """Rows with two label columns, as TREC has, and two texts beside row numbers, as GLUE has."""
    return {
        "idx": [7 + i for i in range(n)],
        "mood": [i % 2 for i in range(n)],
        "coarse": [i % 3 for i in range(n)],
        "sentence1": [f"first {i}" for i in range(n)],
        "sentence2": [f"second {i}" for i in range(n)],
    }
