import pytest

from benchmarks.files import write_text


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "report.md"
    path.write_text("old")
    path.chmod(0o640)
    return path


def test_a_file_is_replaced(path):
    write_text(path, "neu: ü ⏎\n")
    assert path.read_bytes() == "neu: ü ⏎\n".encode()
    assert path.stat().st_mode & 0o777 == 0o640
    assert [other.name for other in path.parent.iterdir()] == ["report.md"]


def test_a_full_disk_leaves_the_old_file_alone(path, small_files):
    with small_files(10), pytest.raises(OSError) as error:
        write_text(path, "x" * 1000)
    assert error.value.filename == str(path)
    assert path.read_text() == "old" and [other.name for other in path.parent.iterdir()] == ["report.md"]


def test_a_link_is_followed(path, tmp_path):
    link = tmp_path / "link.md"
    link.symlink_to(path)
    write_text(link, "new")
    assert link.is_symlink() and path.read_text() == "new"


def test_half_of_a_surrogate_pair_is_shown(path):
    write_text(path, "a\ud83d")
    assert path.read_text() == "a\\ud83d"
