"""A data directory as people have it: a volume's root is as good as an empty folder."""

from __future__ import annotations

import pytest

from coordinator.infra.processes.data_dir import FILE_SYSTEMS, claim_data_dir
from coordinator.streams.log.errors import OperatorError


@pytest.mark.parametrize("name", FILE_SYSTEMS)
def test_what_a_file_system_puts_into_a_volume_is_no_stranger(tmp_path, name):
    (tmp_path / name).mkdir()
    with claim_data_dir(tmp_path, "btc-up"):
        assert (tmp_path / "crunch.json").exists()


def test_what_somebody_else_put_there_is(tmp_path):
    (tmp_path / "lost+found").mkdir()
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(OperatorError, match=r"thesis\.tex"):
        claim_data_dir(tmp_path, "btc-up")
