"""The learners made beforehand are those of a training anew."""

from kdlab.show import hidden_layers as layers


def test_the_learners_beforehand_are_what_training_anew_gives():
    tasks, teachers, kept = layers.learners(layers.COUNT, layers.EPOCHS)
    _, anew, student = layers.train_learners(layers.COUNT, layers.EPOCHS)
    similar = kept("similarity"), student("similarity")
    for before, now in ((teachers, anew), similar):
        difference = before.last()["accuracy"] - now.last()["accuracy"]
        assert len(before) == 4 and difference.abs().max() < 0.02
    found = [layers.alikeness(tasks, runs, anew)["layer 3", "layer 3"].mean for runs in similar]
    assert abs(found[0] - found[1]) < 0.01
    for hints in layers.HINTS:
        assert (
            kept(hints).last()["objective"].str.contains(layers.HINTS[hints][0].__name__).all()
        ), hints


def test_a_repetition_shows_networks_that_have_not_seen_its_images(monkeypatch):
    trained = []
    monkeypatch.setattr(layers, "train_learners", lambda *given: trained.append(given))
    monkeypatch.setenv("KDLAB_REPEAT", "1")
    layers.learners(layers.COUNT, layers.EPOCHS)
    assert trained == [(layers.COUNT, layers.EPOCHS)]
