import numpy as np

from refinenet_jax.data.transforms import RandomFlip
from tests.data.transforms.pictures import (
    assert_same_again_and_input_left_alone,
    picture,
)


def test_same_generator_same_result_and_the_input_is_left_alone():
    assert_same_again_and_input_left_alone(RandomFlip(0.5))
    assert_same_again_and_input_left_alone(RandomFlip(1.0))


def test_flip_mirrors_columns_in_its_share_of_cases():
    given = picture()
    flipped = 0
    for seed in range(400):
        result = RandomFlip(0.25)(given, np.random.default_rng(seed))
        mirrored = result["label"][0, 0] == 59
        expected = given["image"][:, ::-1] if mirrored else given["image"]
        np.testing.assert_array_equal(result["image"], expected)
        flipped += mirrored
    assert 70 <= flipped <= 130  # 100 expected, standard deviation 9
    never, always = RandomFlip(0.0), RandomFlip(1.0)
    assert never(given, np.random.default_rng(0))["label"][0, 0] == 0
    assert always(given, np.random.default_rng(0))["label"][0, 0] == 59
