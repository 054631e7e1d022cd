"""The watch for changed files."""

from pathlib import Path

from doherty_service.security._watch import FileWatch


def test_every_change_is_noticed_once(tmp_path: Path) -> None:
    file, link = tmp_path / "file", tmp_path / "link"
    link.symlink_to(file)
    watch = FileWatch([link])
    assert not watch.changed()

    def write() -> None:
        file.write_text("a")

    def replace() -> None:
        (tmp_path / "other").write_text("a")
        (tmp_path / "other").replace(file)

    def make_unreadable() -> None:
        file.chmod(0)

    for change in (write, replace, make_unreadable, file.unlink):
        change()
        assert watch.changed(), change
        assert not watch.changed(), change
