"""Small sets of texts in the hub's layout, and where a set is looked for."""


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


def looked_at(said, name, data, hub_id, hub):
    """Whether an error names every place that was looked at, in that order."""
    places = [
        f"directory {name}",
        f"KDLAB_DATA={data}",
        f"hub cache, id {hub_id}",
        f"the hub ({hub}",
    ]
    found = [said.index(place) for place in places]
    return found == sorted(found)
