"""Image sets as people have them: any mode, depth, size and rotation, and labels of any kind."""

import io
from itertools import count

import datasets
import huggingface_hub.constants as hub
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

import kdlab as kd

KINDS = datasets.ClassLabel(names=["ant", "bee"])
NUMBERS = count()
COLOUR = {"RGB", "P", "RGBA", "CMYK"}


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty KDLAB_DATA with empty caches."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(hub, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("KDLAB_DATA", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "data"


def stored(image, kind="PNG", **options):
    """An image as a file's bytes, as hub sets hold it."""
    if image is None or isinstance(image, bytes):
        return image and {"bytes": image, "path": None}
    file = io.BytesIO()
    image.save(file, kind, **options)
    return {"bytes": file.getvalue(), "path": None}


def grey(value, size=(4, 6)):
    return Image.new("L", size[::-1], value)


def write(home, label=KINDS, **splits):
    """A new set of (images, labels, more columns) a split, whose name is returned."""
    name = f"zoo{next(NUMBERS)}"
    (home / name).mkdir(parents=True)
    for split, (images, labels, *more) in splits.items():
        extra = more[0] if more else {}
        images = [i if isinstance(i, dict) else stored(i) for i in images]
        features = datasets.Features(
            {"scan": datasets.Image(), "kind": label}
            | {k: KINDS if k == "other" else datasets.Image() for k in extra}
        )
        rows = datasets.Dataset.from_dict({"scan": images, "kind": labels} | extra, features)
        rows.to_parquet(home / name / f"{split}.parquet")
    return name


def twelve(value=30, **options):
    return [grey(value, **options)] * 12, [0, 1] * 6


def painted(mode, rgb, alpha, depth, size):
    """(file, the colour it must be read as, in [0, 1]) of an image of one colour."""
    shape, (r, g, b) = size[::-1], rgb
    over = np.array(rgb) * alpha / 255 + 255 - alpha  # on white
    if mode == "L":
        return stored(Image.new("L", shape, r)), [r / 255] * 3
    if mode == "1":
        return stored(Image.new("1", shape, r % 2)), [float(r % 2)] * 3
    if mode == "I;16":
        picture = Image.fromarray(np.full(size, depth, np.uint16))
        return stored(picture, "TIFF" if r % 2 else "PNG"), [depth / 65535] * 3
    if mode == "F":
        return stored(Image.new("F", shape, depth / 65535), "TIFF"), [depth / 65535] * 3
    if mode == "LA":
        return stored(Image.new("LA", shape, (r, alpha))), [over[0] / 255] * 3
    if mode == "RGBA":
        return stored(Image.new("RGBA", shape, (r, g, b, alpha))), over / 255
    if mode == "CMYK":
        ink = Image.new("CMYK", shape, (255 - r, 255 - g, 255 - b, 0))
        return stored(ink, "TIFF"), np.array(rgb) / 255
    picture = Image.new(mode, shape, 1 if mode == "P" else rgb)
    if mode == "P":
        picture.putpalette([7, 8, 9, r, g, b])
    return stored(picture), np.array(rgb) / 255


EIGHT = st.integers(0, 255)
SIZES = st.tuples(st.integers(1, 9), st.integers(1, 9))
PAINT = st.tuples(
    st.sampled_from(sorted(COLOUR | {"L", "1", "I;16", "F", "LA"})),
    st.tuples(EIGHT, EIGHT, EIGHT),
    EIGHT,
    st.integers(0, 65535),
)


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    paints=st.lists(PAINT, min_size=2, max_size=9),
    sizes=st.lists(SIZES, min_size=1, max_size=3),
    resize=st.one_of(st.none(), st.integers(1, 8), SIZES),
)
def test_every_pixel_of_any_mixture_of_modes_and_sizes_is_the_colour_that_was_painted(
    home, paints, sizes, resize
):
    made = [painted(*p, sizes[i % len(sizes)]) for i, p in enumerate(paints)]
    several = len({sizes[i % len(sizes)] for i in range(len(made))} | {sizes[0]}) > 1
    resize = (5, 3) if several and resize is None else resize
    name = write(
        home,
        train=twelve(30, size=sizes[0]),
        test=([file for file, _ in made], [i % 2 for i in range(len(made))]),
    )
    task = kd.load(name, resize=resize)
    channels = 3 if any(mode in COLOUR for mode, *_ in paints) else 1
    size = sizes[0] if resize is None else (resize, resize) if isinstance(resize, int) else resize
    assert task.shape == (channels, *size)
    expected = np.array([colour for _, colour in made])[:, :channels, None, None]
    expected = np.broadcast_to(expected, (len(made), channels, *size))
    np.testing.assert_allclose(task.test.x, expected, atol=0.51 / 255, rtol=0)  # alpha is rounded
    exact = [i for i, (mode, *_) in enumerate(paints) if mode not in ("LA", "RGBA")]
    np.testing.assert_allclose(task.test.x[exact], expected[exact], atol=1e-6)
    np.testing.assert_allclose(
        task.train.x, np.full((len(task.train), channels, *size), 30 / 255), atol=1e-6
    )


def test_sixteen_bits_are_divided_by_their_own_maximum(home):
    values = [0, 10000, 40000, 65535]
    files = [stored(Image.fromarray(np.full((4, 6), v, np.uint16))) for v in values]
    x = kd.load(write(home, train=twelve(), test=(files, [0, 1, 0, 1]))).test.x
    assert x[:, 0, 0, 0].tolist() == pytest.approx([0, 0.152590, 0.610361, 1], abs=1e-5)


@pytest.mark.parametrize("at", [0, 1, 11])
def test_a_grey_image_anywhere_leaves_the_others_their_colours(home, at):
    images = [Image.new("RGB", (6, 4), (255, 0, 0))] * 12
    images[at] = grey(51)
    task = kd.load(write(home, train=(images, [0, 1] * 6)))
    x = np.concatenate([task.train.x, task.validation.x, task.test.x])
    found = sorted((x[:, :, 0, 0] * 255).round().tolist())
    assert found == [[51] * 3] + [[255, 0, 0]] * 11


def test_colour_in_one_split_is_colour_in_all(home):
    for train, test in ((grey(51), "RGB"), (Image.new("RGB", (6, 4), (51, 51, 51)), "L")):
        name = write(
            home, train=([train] * 12, [0, 1] * 6), test=([Image.new(test, (6, 4))] * 2, [0, 1])
        )
        task = kd.load(name, sizes=(4, 2, 2))
        assert task.shape == (3, 4, 6) and task.test.x.shape == (2, 3, 4, 6)
        assert task.train.x.unique().tolist() == pytest.approx([0.2])


def test_transparent_is_white_whatever_colour_lies_beneath(home):
    palette = Image.new("P", (6, 4), 1)
    palette.putpalette([0, 0, 0, 200, 0, 0])
    files = [
        stored(Image.new("RGBA", (6, 4), (9, 9, 9, 0))),
        stored(palette, transparency=1),
        stored(Image.new("RGB", (6, 4), (1, 2, 3)), transparency=(1, 2, 3)),
        stored(Image.new("L", (6, 4), 7), transparency=7),
        stored(Image.fromarray(np.full((4, 6), 7, np.uint16)), transparency=7),
    ]
    x = kd.load(write(home, train=twelve(), test=(files, [0, 1, 0, 1, 0]))).test.x
    assert x.unique().tolist() == [1]


UPRIGHT = {
    1: lambda a: a,
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: lambda a: np.swapaxes(a, 0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(np.swapaxes(a, 0, 1), 2),
    8: lambda a: np.rot90(a, 1),
}


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", UPRIGHT)
def test_a_camera_held_in_any_way_gives_upright_images(home, kind, orientation):
    pixels = np.zeros((16, 32, 3), np.uint8)
    pixels[:8, :16], pixels[:8, 16:], pixels[8:, :16] = 240, 160, 80
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if kind == "WEBP" else {"quality": 95} if kind == "JPEG" else {}
    file = stored(Image.fromarray(pixels), kind, exif=exif, **options)
    task = kd.load(write(home, train=([file] * 12, [0, 1] * 6)))
    expected = UPRIGHT[orientation](pixels).transpose(2, 0, 1) / 255
    assert task.shape == expected.shape
    np.testing.assert_allclose(task.train.x[0], expected, atol=0.02 if kind == "JPEG" else 1e-6)


def test_images_in_folders_are_read_like_those_in_a_table(home):
    for split, kinds in {"train": 12, "test": 2}.items():
        for i in range(kinds):
            file = home / "files" / split / f"{'ab'[i % 2]}" / f"{i}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((4, 6), 1000 * i, np.uint16)).save(file)
    task = kd.load("files")
    assert task.classes == ["a", "b"] and task.shape == (1, 4, 6)
    x = np.concatenate([task.train.x, task.validation.x])[:, 0, 0, 0]
    assert sorted(x) == pytest.approx([1000 * i / 65535 for i in range(12)])


def test_several_sizes_are_told_with_the_argument_that_helps(home):
    name = write(home, train=([grey(0)] * 11 + [grey(0, (8, 8))], [0, 1] * 6))
    with pytest.raises(
        ValueError,
        match=r"images must share one size, got \[\(4, 6\), \(8, 8\)\]: "
        r"resize=\(height, width\) makes them one, .* resize=\(4, 6\)",
    ):
        kd.load(name)
    assert kd.load(name, resize=5).shape == (1, 5, 5)
    assert kd.load(name, resize=(3, 7)).shape == (1, 3, 7)


def test_a_test_split_of_another_size_is_told_before_a_model_meets_it(home):
    name = write(home, train=twelve(), test=twelve(size=(8, 8)))
    with pytest.raises(ValueError, match="images must share one size"):
        kd.load(name)


@pytest.mark.parametrize("resize", [0, -1, 2.5, "4", (4,), (4, 0), (4, 4, 4), (4, 2.0), ()])
def test_a_resize_that_is_no_size_is_told(home, resize):
    with pytest.raises(ValueError, match="^load: resize must be a whole number of at least 1 or"):
        kd.load(write(home, train=twelve()), resize=resize)


@pytest.mark.parametrize("option", [{"resize": 4}, {"label": "kind"}, {"image": "scan"}])
def test_what_only_sets_of_files_have_is_refused_for_the_others(option):
    with pytest.raises(ValueError, match="^load: image, label and resize are for sets .*'digits'"):
        kd.load("digits", **option)


FLAT = np.full((4, 6), 3, np.float32)
NOISE = np.random.default_rng(0).integers(0, 255, (40, 60), np.uint8)
HALF = [stored(Image.fromarray(NOISE[:, :width]))["bytes"][:900] for width in (40, 60)]
BAD = {
    "nothing": (None, "has no image"),
    "no image": (b"no image at all", "has no readable image"),
    "nan": (stored(Image.fromarray(FLAT * np.nan), "TIFF"), "floats must lie in"),
    "floats": (stored(Image.fromarray(FLAT), "TIFF"), r"must lie in \[0, 1\], got 3 to 3"),
    "32 bits": (stored(Image.fromarray(FLAT.astype(np.int32)), "TIFF"), "whole numbers of 32"),
    "cut off": (HALF[0], "truncated"),
    "cut off, wide": (HALF[1], "truncated"),
}


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("split", ["train", "test"])
def test_an_image_that_is_missing_or_broken_is_told_by_its_row(home, bad, split):
    file, words = BAD[bad]
    file = stored(file) if isinstance(file, bytes) else file
    splits = {"train": twelve(), "test": twelve()}
    splits[split] = (splits[split][0][:], splits[split][1])
    for row in (3, 8):
        splits[split][0][row] = file
    name = write(home, **splits)
    some = r"(3|8|3, 8)" if split == "train" else "3, 8"  # every test row is read
    with pytest.raises(
        ValueError,
        match=f"^load: '{name}': column 'scan' has no .*image in "
        rf"rows \[{some}\] of the {split} split",
    ) as error:
        kd.load(name, resize=4)
    assert error.match(words)


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize(
    "label, value",
    [(KINDS, None), (datasets.Value("int64"), None), (KINDS, -1), (datasets.Value("int8"), -1)],
)
def test_a_label_that_is_missing_or_hidden_is_told_by_its_row(home, split, label, value):
    splits = {"train": twelve(), "test": twelve()}
    splits[split][1][3] = splits[split][1][7] = value
    name = write(home, label, **splits)
    words = "has no value" if value is None else r"has hidden labels \(below 0\)"
    with pytest.raises(
        ValueError,
        match=f"^load: '{name}': column 'kind' {words} in " rf"rows \[3, 7\] of the {split} split",
    ):
        kd.load(name)


def test_many_rows_without_a_label_are_counted(home):
    images, labels = twelve()
    name = write(home, train=(images, [0] + [None] * 11))
    with pytest.raises(ValueError, match=r"rows \[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, …\] \(11\) of "):
        kd.load(name)


@pytest.mark.parametrize("hidden", [-1, None])
def test_a_test_split_that_hides_all_its_labels_is_left_aside(home, hidden):
    images, labels = [grey(i) for i in range(40)], [0, 1] * 20
    task = kd.load(write(home, train=(images, labels), test=([grey(200)] * 4, [hidden] * 4)))
    assert [len(task.train), len(task.validation), len(task.test)] == [26, 6, 8]
    assert task.test.x.max() < 40 / 255


@pytest.mark.parametrize("split", ["test", "validation"])
def test_a_set_of_one_split_is_never_its_own_test_set(home, split):
    task = kd.load(write(home, **{split: ([grey(i) for i in range(40)], [0, 1] * 20)}))
    values = [set(part.x[:, 0, 0, 0].tolist()) for part in (task.train, task.validation, task.test)]
    assert sum(map(len, values)) == len(set.union(*values)) == 40


def read_back(home, label, train, test):
    """(classes, labels of the training images in their order, labels of the test images)."""
    name = write(
        home,
        label,
        train=([grey(i) for i in range(len(train))], train),
        test=([grey(99)] * len(test), test),
    )
    task = kd.load(name, label="kind")
    pairs = [
        (round(float(x[0, 0, 0]) * 255), int(y))
        for part in (task.train, task.validation)
        for x, y in zip(part.x, part.y, strict=True)
    ]
    return task.classes, [y for _, y in sorted(pairs)], task.test.y.tolist()


@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    values=st.lists(st.integers(0, 10**6), min_size=2, max_size=4, unique=True),
    unseen=st.integers(0, 10**6),
)
def test_whole_numbers_become_the_classes_that_occur_in_any_split(home, values, unseen):
    classes, train, test = read_back(home, datasets.Value("int64"), values * 6, [unseen, *values])
    rank = {v: i for i, v in enumerate(sorted({unseen, *values}))}
    assert classes == [str(v) for v in rank]
    assert train == [rank[v] for v in values * 6] and test == [rank[v] for v in [unseen, *values]]


@pytest.mark.parametrize(
    "label, values, classes",
    [
        (datasets.Value("string"), ["sad", "glad", " sad"], ["glad", "sad"]),
        (datasets.Value("large_string"), ["10", "9", "b"], ["10", "9", "b"]),
        (datasets.Value("bool"), [True, False, True], ["False", "True"]),
        (datasets.Value("uint8"), [7, 3, 200], ["3", "7", "200"]),
        (datasets.ClassLabel(names=["a", "b", "c", "never"]), [2, 0, 0], ["a", "b", "c", "never"]),
    ],
)
def test_labels_of_every_kind_are_classes(home, label, values, classes):
    found, train, test = read_back(home, label, values * 6, values)
    names = [label.int2str(v) if hasattr(label, "names") else str(v).strip() for v in values]
    assert found == classes and [found[y] for y in train] == names * 6
    assert [found[y] for y in test] == names


@pytest.mark.parametrize(
    "label, values",
    [
        (datasets.Value("float32"), [0.0, 1.0]),
        (datasets.List(datasets.Value("int64")), [[0], [1]]),
        (datasets.Value("float64"), [None, 1.0]),
    ],
)
def test_what_cannot_be_a_label_is_told(home, label, values):
    name = write(home, label, train=([grey(0)] * 12, values * 6))
    with pytest.raises(
        ValueError,
        match=f"^load: '{name}': label must name one of .*got 'kind', which holds (Value|List)",
    ):
        kd.load(name, label="kind")


def test_several_label_or_image_columns_are_named_by_the_reader(home):
    images, labels = twelve()
    masks = [stored(grey(200, (4, 6)))] * 12
    name = write(home, train=(images, labels, {"mask": masks, "other": [1, 1, 0] * 4}))
    with pytest.raises(
        ValueError,
        match=r"must have one image column, got \['scan', 'mask'\]: " "name it by image=",
    ):
        kd.load(name, label="other")
    with pytest.raises(
        ValueError,
        match=r"must have one label column, got \['kind', 'other'\]: "
        r"name it by label=, one of \['kind', 'other'\]",
    ):
        kd.load(name, image="scan")
    task = kd.load(name, image="mask", label="other")
    assert task.train.x.unique().tolist() == pytest.approx([200 / 255])
    assert len(task.train.y) + len(task.validation.y) + len(task.test.y) == 12
    assert sum(int(part.y.sum()) for part in (task.train, task.validation, task.test)) == 8
    for wrong in ("kin", 3, ["kind"]):
        with pytest.raises(ValueError, match="label must name one of the columns .*'scan'.*'kind'"):
            kd.load(name, image="scan", label=wrong)
    with pytest.raises(ValueError, match="image must name one of .*'scan', 'mask'.* got 'kind'"):
        kd.load(name, image="kind", label="kind")


def test_row_numbers_are_not_taken_for_classes(home):
    name = write(home, datasets.Value("int64"), train=([grey(0)] * 12, list(range(12))))
    with pytest.raises(ValueError, match="column 'kind' only numbers the rows, no two alike"):
        kd.load(name)


def test_one_class_is_nothing_to_tell_apart(home):
    for label in (KINDS, datasets.Value("int64")):
        name = write(home, label, train=([grey(0)] * 12, [1] * 12), test=([grey(0)] * 2, [0, 1]))
        with pytest.raises(
            ValueError,
            match=(
                "column 'kind' must hold at least two classes in the "
                "train split, got '(bee|1)' alone"
            ),
        ):
            kd.load(name, noise=0.5)


@pytest.mark.parametrize(
    "out", [range(10), range(9), {0, 1, 2, 3, 4, 5, 6, 8, 9}, [*range(1, 10), 1]]
)
@pytest.mark.parametrize("noise", [0.0, 0.5])
def test_leaving_out_all_classes_or_all_but_one_is_told(out, noise):
    with pytest.raises(
        ValueError,
        match="^load: leave_out must leave at least two of the classes "
        r"in train, \[0, 1, 2, 3, 4, 5, 6, 7, 8, 9\], got \(",
    ):
        kd.load("digits", leave_out=out, noise=noise)


def test_two_classes_left_are_enough_for_noise():
    task = kd.load("digits", leave_out=range(8), noise=1.0)
    assert sorted(task.train.y.unique().tolist()) == [8, 9]
    assert (task.train.y == 17 - task.train.clean).all()


def test_training_images_of_one_class_alone_are_told(home):
    name = write(home, train=([grey(0)] * 60, [0] * 58 + [1] * 2))
    with pytest.raises(ValueError, match="^load: the 2 training images must hold at least two"):
        kd.load(name, sizes=(2, 2, 2), noise=0.5)


@pytest.mark.parametrize("split", ["train", "test"])
def test_an_empty_split_is_told(home, split):
    splits = {"train": twelve(), "test": twelve()}
    splits[split] = ([], [])
    name = write(home, **splits)
    with pytest.raises(ValueError, match=f"^load: '{name}': the {split} split is empty"):
        kd.load(name)


def test_too_few_images_to_hold_some_out_are_told(home):
    name = write(home, train=([grey(0)] * 4, [0, 1, 0, 1]), test=twelve())
    with pytest.raises(ValueError, match="^load: 4 training images are too few to hold some"):
        kd.load(name)


def test_the_heads_of_the_files_are_read_once_for_all_seeds(home, monkeypatch):
    name, opened, real = write(home, train=twelve(), test=twelve()), [], Image.open
    monkeypatch.setattr(Image, "open", lambda file: opened.append(file) or real(file))
    kd.load(name, sizes=(2, 2, 2))
    assert len(opened) == 24 + 6
    kd.splits(name, 3, sizes=(2, 2, 2))
    assert len(opened) == 24 + 4 * 6
