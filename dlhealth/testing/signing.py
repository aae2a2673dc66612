"""Certificates and signatures for Secure Boot: the fields that name a key, nothing that could be verified."""


def der(tag: int, *parts: bytes) -> bytes:
    """One DER element."""
    content = b"".join(parts)
    size = len(content)
    length = bytes([size]) if size < 0x80 else b"\x82" + size.to_bytes(2, "big")
    return bytes([tag]) + length + content


def certificate(serial: int) -> bytes:
    """An X.509 certificate up to its serial number and issuer."""
    body = der(0x30, der(0xA0, der(0x02, b"\2")), der(0x02, bytes([serial])), der(0x30), der(0x30))
    return der(0x30, body, der(0x30), der(0x03, b"\0"))


def signature(serial: int) -> bytes:
    """A PKCS#7 message that names its signer by issuer and serial number, in the format of the kernel's sign-file."""
    signer = der(
        0x30, der(0x02, b"\1"), der(0x30, der(0x30), der(0x02, bytes([serial]))), der(0x30), der(0x04, bytes(300))
    )
    signed = der(0x30, der(0x02, b"\1"), der(0x31, der(0x30)), der(0x30, der(0x06, b"\x2a")), der(0x31, signer))
    return der(0x30, der(0x06, bytes.fromhex("2a864886f70d010702")), der(0xA0, signed))


def mok_list(serials: tuple[int, ...]) -> bytes:
    """The EFI variable MokListRT with these certificates, one list each."""
    lists = []
    for serial in serials:
        entry = bytes(16) + certificate(serial)
        sizes = b"".join(n.to_bytes(4, "little") for n in (28 + len(entry), 0, len(entry)))
        lists.append(bytes.fromhex("a159c0a5e494a74a87b5ab155c2bf072") + sizes + entry)
    return b"\6\0\0\0" + b"".join(lists)
