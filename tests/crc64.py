# SPDX-License-Identifier: Apache-2.0
"""OpenIGTLink's checksum (ECMA-182) in Python, for tests."""


def crc64(data, table=[]):
    if not table:
        for byte in range(256):
            crc = byte << 56
            for _ in range(8):
                crc = (crc << 1 ^ (0x42F0E1EBA9EA3693 if crc >> 63 else 0)) & (1 << 64) - 1
            table.append(crc)
    crc = 0
    for byte in data:
        crc = table[crc >> 56 ^ byte] ^ (crc << 8 & (1 << 64) - 1)
    return crc
