import collections
import pickle
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from refinenet_jax.data.sampling import ClassBalancedOrder, class_balanced_epoch
from refinenet_jax.errors import UserError

# Images of each class: 50, 7, 1 and none; image 59 has no class at all.
PRESENT = np.zeros((60, 4), bool)
PRESENT[:50, 0] = True
PRESENT[46:53, 1] = True
PRESENT[58, 2] = True
LENGTH = 10 + 7 + 1


def order(seed: int = 3, images_per_class: int = 10) -> ClassBalancedOrder:
    return ClassBalancedOrder(PRESENT, images_per_class, seed)


def test_an_epoch_holds_the_same_number_for_every_class_that_has_them():
    for seed in range(50):
        epoch = class_balanced_epoch(PRESENT, 10, np.random.default_rng(seed))
        assert epoch.shape == (LENGTH,) and epoch.dtype == np.int64
        drawn = collections.Counter(epoch.tolist())
        # Images 46..49 hold two classes; they come once for 1, maybe again for 0.
        assert all(drawn[image] >= 1 for image in [*range(46, 53), 58])
        assert max(drawn.values()) <= 2
        for_class_0 = drawn - collections.Counter([*range(46, 53), 58])
        assert for_class_0.total() == 10 and set(for_class_0) <= set(range(50))
        assert max(for_class_0.values()) == 1


def test_every_image_of_a_large_class_is_as_likely():
    drawn = np.zeros(60, int)
    for seed in range(1000):
        epoch = class_balanced_epoch(PRESENT, 10, np.random.default_rng(seed))
        drawn += np.bincount(epoch, minlength=60)
    # Binomial: 10 of 50 images in 1000 epochs; standard deviation 12.6.
    assert np.all(np.abs(drawn[:46] - 200) < 60)
    assert np.all(np.abs(drawn[46:50] - 1200) < 60)
    assert np.all(drawn[50:] == [1000] * 3 + [0] * 5 + [1000, 0])


def test_an_epoch_is_shuffled():
    places = [
        int(
            np.argmax(class_balanced_epoch(PRESENT, 10, np.random.default_rng(i)) == 58)
        )
        for i in range(1000)
    ]
    counts = np.bincount(places, minlength=LENGTH)
    # Binomial: 56 expected, standard deviation 7.2.
    assert np.all(np.abs(counts - 1000 / LENGTH) < 30)


def test_no_class_no_image():
    epoch = class_balanced_epoch(np.zeros((5, 3), bool), 10, np.random.default_rng(0))
    assert epoch.shape == (0,)


def test_the_order_is_epoch_after_epoch():
    images = order()
    assert len(images) == sys.maxsize
    epochs = [
        [images[position] for position in range(start, start + LENGTH)]
        for start in range(0, 20 * LENGTH, LENGTH)
    ]
    for epoch in epochs:
        assert {*range(46, 53), 58} <= set(epoch)
        assert 59 not in epoch
    assert len({tuple(epoch) for epoch in epochs}) == 20
    assert all(type(image) is int for image in epochs[0])


def test_a_position_always_holds_the_same_image():
    expected = [order()[position] for position in range(500)]
    images = order()
    positions = np.random.default_rng(0).permutation(500).tolist()
    shuffled = {position: images[position] for position in positions}
    assert [shuffled[position] for position in range(500)] == expected
    far = 10**15
    assert images[far] == order()[far]


def test_threads_see_the_same_order():
    expected = [order()[position] for position in range(2000)]
    images = order()
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(images.__getitem__, range(2000))) == expected


def test_the_seed_decides():
    first = [order()[position] for position in range(200)]
    assert [order(4)[position] for position in range(200)] != first


def test_it_travels_to_data_workers():
    images = order()
    expected = [images[position] for position in range(100)]
    copy = pickle.loads(pickle.dumps(images))
    assert [copy[position] for position in range(100)] == expected


def test_what_travels_is_small():
    """COCO's size: the table has 20 million entries, a few of a hundred are true."""
    present = np.zeros((100_000, 171), bool)
    present[np.arange(100_000), np.arange(100_000) % 171] = True
    images = ClassBalancedOrder(present, 100, 0)
    assert present[images[12345], images[12345] % 171]
    assert len(pickle.dumps(images)) < 4 * 100_000 + 4 * 8 * 17_100


def test_without_any_class_it_is_an_error():
    with pytest.raises(UserError, match="^class-balanced sampling needs labels"):
        ClassBalancedOrder(np.zeros((5, 3), bool), 10, 0)
