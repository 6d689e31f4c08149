import pytest

from refinenet_jax.errors import UserError
from refinenet_jax.inference.inputs import find_inputs


@pytest.fixture
def folder(tmp_path):
    for name in ("b.PNG", "a.jpg", "notes.txt", "film.MP4", "deep/c.png"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    return tmp_path


def test_a_folder_gives_its_images_and_videos_in_order(folder):
    names = [p.name for p in find_inputs([str(folder)])]
    assert names == ["a.jpg", "b.PNG", "film.MP4"]


def test_files_globs_and_folders_together_without_repeats(folder):
    patterns = [str(folder / "deep" / "*.png"), str(folder / "a.jpg"), str(folder)]
    names = [p.name for p in find_inputs(patterns)]
    assert names == ["c.png", "a.jpg", "b.PNG", "film.MP4"]


def test_a_named_file_is_taken_whatever_its_ending(folder):
    assert [p.name for p in find_inputs([str(folder / "notes.txt")])] == ["notes.txt"]


def test_nothing_there(folder):
    with pytest.raises(UserError, match="needs --images"):
        find_inputs([])
    for pattern in (folder / "nowhere", folder / "*.gif"):
        with pytest.raises(UserError, match="no image there"):
            find_inputs([str(pattern)])


def test_two_files_that_would_be_written_to_one_name(folder):
    (folder / "a.webm").touch()
    with pytest.raises(UserError, match="same name"):
        find_inputs([str(folder)])
