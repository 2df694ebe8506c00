"""Which addresses notifications may go to."""

from ipaddress import ip_address

import pytest

from service.notify.targets import is_public


@pytest.mark.parametrize(
    "address",
    [
        "8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8",
        "64:ff9b::808:808",  # 8.8.8.8 by NAT64
        "2002:808:808::1",  # 8.8.8.8 by 6to4
    ],
)  # fmt: skip
def test_addresses_of_the_open_internet_are_allowed(address: str) -> None:
    assert is_public(ip_address(address))


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "10.0.0.1", "169.254.169.254", "0.0.0.1", "224.0.0.1", "::1", "::", "fe80::1", "fd00::1",
        "ff02::1", "::ffff:127.0.0.1",
        "64:ff9b::7f00:1",  # 127.0.0.1 by NAT64
        "64:ff9b::a9fe:a9fe",  # 169.254.169.254 by NAT64
        "64:ff9b:1::808:808",  # a site's own NAT64
        "2002:7f00:1::",  # 127.0.0.1 by 6to4
        "::10.0.0.1",  # IPv4-compatible
        "::ffff:0:10.0.0.1",  # SIIT
        "fec0::1",
    ],
)  # fmt: skip
def test_addresses_that_lead_inside_are_barred(address: str) -> None:
    assert not is_public(ip_address(address))
