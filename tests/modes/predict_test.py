import pytest

from refinenet_jax.errors import UserError
from refinenet_jax.modes.predict import find_images


@pytest.fixture
def folder(tmp_path):
    for name in ("b.PNG", "a.jpg", "notes.txt", "deep/c.png"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    return tmp_path


def test_a_folder_gives_its_images_in_order(folder):
    assert [p.name for p in find_images([str(folder)])] == ["a.jpg", "b.PNG"]


def test_files_globs_and_folders_together_without_repeats(folder):
    patterns = [str(folder / "deep" / "*.png"), str(folder / "a.jpg"), str(folder)]
    names = [p.name for p in find_images(patterns)]
    assert names == ["c.png", "a.jpg", "b.PNG"]


def test_a_named_file_is_taken_whatever_its_ending(folder):
    assert [p.name for p in find_images([str(folder / "notes.txt")])] == ["notes.txt"]


def test_nothing_there(folder):
    with pytest.raises(UserError, match="needs --images"):
        find_images([])
    for pattern in (folder / "nowhere", folder / "*.gif"):
        with pytest.raises(UserError, match="no image there"):
            find_images([str(pattern)])


def test_two_files_that_would_be_written_to_one_name(folder):
    (folder / "a.png").touch()
    with pytest.raises(UserError, match="same name"):
        find_images([str(folder)])
