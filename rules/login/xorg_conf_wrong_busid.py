"""The X server is configured for a PCI address without a display.

What you see
    No graphical login. The X server's log has "Screen 0 deleted because of no matching config section", or
    "Device(s) detected, but none match those in the config file".
Why
    A BusID in /etc/X11/xorg.conf is decimal: PCI:59:0:0 for the device that lspci calls 3b:00.0. Either the
    hexadecimal number was copied from lspci, or the address of the GPU changed: it was moved to another slot, or a
    new drive or card renumbered the bus.
Repair
    Write the current address of the GPU. On a machine with several GPUs, its owner must choose one.
What the repair risks
    Low: one line of one file changes.
By hand
    lspci -D | grep -e VGA -e 3D
    # then write in decimal, or delete the BusID line
    # BusID "PCI:BUS:DEVICE:FUNCTION"
"""

from collections.abc import Iterator

from dlhealth.api import (
    ByHand,
    DisplayDevice,
    DisplaySetup,
    EditFile,
    Evidence,
    Finding,
    Machine,
    Plan,
    Risk,
    Rule,
    Scenario,
    Severity,
    Stage,
    Unknown,
    busid,
    parse_busid,
    parse_copied_busid,
)

# The vendor whose displays a driver supports; any other driver may support any display.
_VENDORS = {
    "nvidia": "10de",
    "nouveau": "10de",
    "nv": "10de",
    "intel": "8086",
    "amdgpu": "1002",
    "radeon": "1002",
    "ati": "1002",
}


class XorgConfWrongBusid(Rule):
    id = "xorg-conf-wrong-busid"
    title = "The X server is configured for a PCI address without a display"
    stage = Stage.ENVIRONMENT
    severity = Severity.ERROR
    explains = ("login-loop-glx-broken-driver-mismatch",)

    def detect(self, display: DisplaySetup) -> Iterator[Finding | Unknown]:
        for problem in display.problems:
            yield Unknown(problem)
        for section in display.active_devices():
            entry, driver = section.entry("busid"), section.value("driver").lower()
            if entry is None or not _is_pci(entry.values[0]):
                continue
            if not display.devices:
                yield Unknown("cannot find the GPU: the PCI bus is not visible here, or has no display")
                continue
            mine = [d for d in display.devices if d.vendor == _VENDORS.get(driver, d.vendor)]
            written = parse_busid(entry.values[0])
            if not mine or written in {d.address for d in display.devices}:
                continue  # a driver without its GPU is another problem
            wanted = _meant(entry.values[0], mine)
            where = ", ".join(f"{d.address} ({busid(d.address)})" for d in mine)
            means = f"means {written}, where there is no display" if written else "is not a decimal PCI address"
            yield self.finding(
                f"file:{section.path}",
                f'BusID "{entry.values[0]}" in {section.path} {means}; the GPU is at {where}',
                Evidence(f"{section.path}:{entry.line}", entry.text.strip()),
                Evidence("/sys/bus/pci/devices", where),
                path=section.path,
                line=entry.line,
                old=entry.text,
                new=entry.text.replace(entry.values[0], busid(wanted)) if wanted else "",
                where=where,
            )

    def remedies(self, finding: Finding) -> Iterator[Plan]:
        path, number, old, new = (finding.detail[k] for k in ("path", "line", "old", "new"))
        if new:
            yield Plan(
                f"Write the GPU's current address into {path}", Risk.LOW, (EditFile(path, ((number, old, new),)),)
            )
            return
        yield Plan(
            f"Choose the GPU for X in {path}",
            Risk.MEDIUM,
            (
                ByHand(
                    f"In line {number} of {path}, write the BusID of the GPU that X must use: {finding.detail['where']}"
                ),
            ),
        )

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        conf = "/etc/X11/xorg.conf"

        def machine(line: str, *addresses: str) -> Machine:
            made = Machine.debian12().debian_driver()
            for address in addresses or ("0000:3b:00.0",):
                made.gpu(address=address)
            return made.file(
                conf, f'Section "Device"\n    Identifier "gpu"\n    Driver "nvidia"\n    {line}\nEndSection\n'
            )

        yield Scenario(
            "copied from lspci",
            machine('BusID "PCI:3b:00.0"'),
            finds=f"file:{conf}",
            steps=("edit-file",),
            ladder=(("low", 'edit-file /etc/X11/xorg.conf 4: BusID "PCI:59:0:0"'),),
        )
        yield Scenario(
            "hexadecimal digits that look decimal",
            machine('BusID "PCI:10:0:0"', "0000:10:00.0"),
            finds=f"file:{conf}",
            ladder=(("low", 'edit-file /etc/X11/xorg.conf 4: BusID "PCI:16:0:0"'),),
        )
        yield Scenario(
            "the GPU was moved",
            machine('busid "pci:1:0:0"'),
            finds=f"file:{conf}",
            ladder=(("low", 'edit-file /etc/X11/xorg.conf 4: busid "PCI:59:0:0"'),),
        )
        yield Scenario("another PCI domain", machine('BusID "PCI:59@1:0:0"'), finds=f"file:{conf}")
        yield Scenario(
            "one of two GPUs",
            machine('BusID "PCI:2:0:0"', "0000:3b:00.0", "0000:5e:00.0"),
            finds=f"file:{conf}",
            ladder=(("medium", "by-hand 4 /etc/X11/xorg.conf 0000:3b:00.0 PCI:59:0:0 0000:5e:00.0 PCI:94:0:0"),),
        )
        yield Scenario("correct", machine('BusID "PCI:59:0:0"'))
        yield Scenario("correct, with zeros and a domain", machine('BusID "PCI:059@0:00:0"'))
        yield Scenario("correct, without the function", machine('BusID "PCI:59:0"'))
        yield Scenario("no BusID", machine(""))
        yield Scenario("in a comment", machine('# BusID "PCI:1:0:0"'))
        yield Scenario("not PCI", machine('BusID "platform:fd4a0000.gpu"'))
        yield Scenario(
            "the processor's display",
            machine('BusID "PCI:0:2:0"', "0000:00:02.0", "0000:3b:00.0")
            .file("/sys/bus/pci/devices/0000:00:02.0/vendor", "0x8086\n"),
        )  # fmt: skip
        yield Scenario(
            "the PCI bus is not visible",
            Machine().file(conf, 'Section "Device"\n Driver "nvidia"\n BusID "PCI:1:0:0"\nEndSection\n'),
            unknown=True,
        )


def _is_pci(text: str) -> bool:
    kind, colon, _ = text.strip().partition(":")
    return kind.lower() == "pci" or not (colon and kind.isalpha() and len(kind) > 2)


def _meant(text: str, devices: list[DisplayDevice]) -> str:
    """The address of the only possible display; "" if there are several."""
    copied = parse_copied_busid(text)
    if copied in {d.address for d in devices}:
        return copied or ""
    return devices[0].address if len(devices) == 1 else ""
