"""The operator's file of wallets: how it is read, and every way in which it can be wrong."""

from __future__ import annotations

import os

import pytest
from tests.streams.build import PUBKEY

from coordinator.infra.wallets_file import WalletsFile
from coordinator.streams.checkpoints.wallets import BYTES_MAX, parse_wallets
from coordinator.streams.log.errors import OperatorError

OTHER = "4Nd1mBQtrMJVYVfKf2PJy9NZUZdTAsp7D4xWLs4gDB4T"
HEAD = "model_id,wallet\n"


def parsed(text: str) -> tuple[dict[str, str], list[str]]:
    return parse_wallets(text.encode())


def test_models_wallets_comments_and_blanks():
    text = f'\ufeff# paid by hand\n\n{HEAD}17, {PUBKEY}\n"a,b",{OTHER}\n  # 18 left\n19,{PUBKEY}\r\n'
    assert parsed(text) == ({"17": PUBKEY, "a,b": OTHER, "19": PUBKEY}, [])
    assert parsed(HEAD) == ({}, [])


WRONG = {
    "nothing": ("", "holds no line"),
    "only comments": ("# nothing\n", "holds no line"),
    "no heading": (f"17,{PUBKEY}\n", "line 1: the heading must be model_id,wallet"),
    "another heading": (f"wallet,model_id\n{PUBKEY},17\n", "line 1: the heading must be"),
    "a column too many": (f"{HEAD}17,{PUBKEY},x\n", "line 2: 3 columns instead of 2"),
    "a column too few": (f"{HEAD}17\n", "line 2: 1 columns instead of 2"),
    "no model": (f"{HEAD},{PUBKEY}\n", "line 2: the model_id is empty"),
    "a long model": (f"{HEAD}{'x' * 201},{PUBKEY}\n", "longer than 200"),
    "no wallet": (f"{HEAD}17,\n", "line 2: the wallet of model 17 is no public key"),
    "a wallet of 31 bytes": (f"{HEAD}17,{'1' * 31}\n", "no public key"),
    "an address of another chain": (f"{HEAD}17,0x52908400098527886E0F7030069857D2E4169EE7\n", "no public key"),
    "a model twice": (f"{HEAD}17,{PUBKEY}\n# -\n17,{PUBKEY}\n", "line 4: model 17 stands on line 2 already"),
    "a spreadsheet's 17": (f"{HEAD}17.0,{PUBKEY}\n", "line 2: the model_id 17.0 looks like a number that a spreadsheet"),
    "a spreadsheet's 17000000": (f"{HEAD}1.7E+07,{PUBKEY}\n", "looks like a number that a spreadsheet"),
    "a letter that nobody sees": (f"{HEAD}17\u200b,{PUBKEY}\n", "the model_id 17\\u200b holds a character that nobody sees"),
    "one id in two spellings": (f"{HEAD}17,{PUBKEY}\n017,{PUBKEY}\n", "line 3: model 017 stands on line 2 already as 17"),
    "one name in two spellings": (f"{HEAD}Trend,{PUBKEY}\ntrend,{PUBKEY}\n", "line 3: model trend stands on line 2 already as Trend"),
    "the system program": (f"{HEAD}17,{'1' * 32}\n", "the wallet of model 17 is an address of Solana itself"),
    "where money is burnt": (f"{HEAD}17,1nc1nerator11111111111111111111111111111111\n", "is an address of Solana itself"),
    "a program": (f"{HEAD}17,Stake11111111111111111111111111111111111111\n", "is an address of Solana itself"),
    "an open quote": (f'{HEAD}"17,{PUBKEY}\n', "line 2:"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "fault"), WRONG.values(), ids=WRONG)
def test_an_error_is_named_with_its_line_and_nothing_of_the_file_is_used(text, fault):
    wallets, faults = parsed(text)
    assert wallets == {}
    assert fault in "; ".join(faults)


def test_binary_content_and_oversized_files_are_refused():
    assert "is not UTF-8" in parse_wallets(b"\xff\xfe")[1][0]
    assert "at most" in parse_wallets(b"#" * (BYTES_MAX + 1))[1][0]


def test_the_file_is_read_again_after_a_change(tmp_path):
    path = tmp_path / "wallets.csv"
    path.write_text(f"{HEAD}17,{PUBKEY}\n")
    wallets = WalletsFile(str(path))
    assert wallets.lookup() == {"17": PUBKEY}
    path.write_text(f"{HEAD}17,{OTHER}\n")
    os.utime(path, ns=(1, 1))
    assert wallets.lookup() == {"17": OTHER}
    path.write_text(f"{HEAD}17,nobody\n18\n")
    for _ in range(2):  # a wrong file stays an error: the last good mapping is not used instead
        with pytest.raises(OperatorError, match=r"wallets\.csv: line 2: .*; line 3: "):
            wallets.lookup()
    path.unlink()
    with pytest.raises(OperatorError, match="cannot be read: No such file"):
        wallets.lookup()
    assert WalletsFile("").lookup() == {}
