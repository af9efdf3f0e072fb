"""An archive in several files, read in place."""

from pathlib import Path

from appliance.system.volume import WINDOW, Piece, Trail, Volume


class Told(Volume):
    """Writes down what is dropped."""

    dropped: tuple[tuple[int, int], ...] = ()

    def drop(self, begin: int, end: int) -> None:
        self.dropped = (*self.dropped, (begin, end))
        super().drop(begin, end)


def volume(home: Path) -> Told:
    pieces = []
    for number in range(3):
        path = home / f"{number}"
        path.write_bytes(bytes([number]) * 5000)
        pieces.append(Piece(path=path, start=number * 4000, size=4000, skip=1000))
    return Told(pieces)


def test_what_is_dropped_may_lie_in_several_files_and_is_there_all_the_same(tmp_path: Path) -> None:
    with volume(tmp_path) as one:
        one.drop(3000, 11_000)
        one.drop(11_000, 20_000)  # the end is nearer
        assert one.read(3999, 2) == b"\0\1"


def test_each_reader_drops_what_it_has_read_itself(tmp_path: Path) -> None:
    """One that looks at the end of a payload first must not keep the others from dropping its beginning."""
    with volume(tmp_path) as one:
        one.read(11_000, 500)
        here, there = Trail(one, 0), Trail(one, 5 * WINDOW)
        for step in range(1, 5):
            here(step * WINDOW // 2)
            there(5 * WINDOW + step * WINDOW // 2)
        whole = (0, WINDOW), (WINDOW, 2 * WINDOW), (5 * WINDOW, 6 * WINDOW), (6 * WINDOW, 7 * WINDOW)
        assert sorted(one.dropped) == sorted(whole)
