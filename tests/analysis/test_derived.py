"""Every table kept under results/ is what the records beside it give, byte for byte."""

from __future__ import annotations

from tests.commands import call


def test_every_kept_table_is_made_again_byte_for_byte() -> None:
    done = call("make_table1.py", "--check", seconds=200)
    assert (done.returncode, done.stdout.splitlines()[1:]) == (0, []), done.stdout
    assert "no byte differs" in done.stdout
