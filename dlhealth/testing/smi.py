"""A report of `nvidia-smi -q`, as people post it."""

CARD = {
    "Product Name": "NVIDIA A100-SXM4-80GB",
    "Persistence Mode": "Enabled",
    "Compute Mode": "Default",
    "PCI/GPU Link Info/PCIe Generation/Max": "4",
    "PCI/GPU Link Info/PCIe Generation/Current": "4",
    "PCI/GPU Link Info/Link Width/Max": "16x",
    "PCI/GPU Link Info/Link Width/Current": "16x",
    "Performance State": "P0",
    "Clocks Event Reasons/Idle": "Not Active",
    "Clocks Event Reasons/SW Power Cap": "Not Active",
    "Clocks Event Reasons/HW Slowdown": "Not Active",
    "Clocks Event Reasons/HW Slowdown/HW Thermal Slowdown": "Not Active",
    "Clocks Event Reasons/HW Slowdown/HW Power Brake Slowdown": "Not Active",
    "Clocks Event Reasons/SW Thermal Slowdown": "Not Active",
    "Utilization/GPU": "98 %",
    "ECC Mode/Current": "Enabled",
    "ECC Errors/Volatile/SRAM Uncorrectable": "0",
    "ECC Errors/Volatile/DRAM Uncorrectable": "0",
    "Remapped Rows/Correctable Error": "0",
    "Remapped Rows/Uncorrectable Error": "0",
    "Remapped Rows/Pending": "No",
    "Remapped Rows/Remapping Failure Occurred": "No",
    "Temperature/GPU Current Temp": "61 C",
    "Temperature/GPU Slowdown Temp": "89 C",
    "GPU Power Readings/Average Power Draw": "385.20 W",
    "GPU Power Readings/Current Power Limit": "400.00 W",
    "GPU Power Readings/Default Power Limit": "400.00 W",
}
"""A sound GPU that works: values by the path of their sections."""


def report(*cards: dict[str, str]) -> str:
    """Of several GPUs, each with the values that are not those of CARD; "" for a line that is missing."""
    parts = ["==============NVSMI LOG==============\n\nDriver Version                            : 550.127.08\n"]
    for number, changed in enumerate(cards, 1):
        parts.append(f"GPU 00000000:{number:02X}:00.0")
        shown: tuple[str, ...] = ()
        for path, value in {**CARD, **changed}.items():
            *sections, key = path.split("/")
            for depth, section in enumerate(sections):
                if shown[: depth + 1] != tuple(sections[: depth + 1]):
                    parts.append(f"{'    ' * (depth + 1)}{section}")
            indent = "    " * (len(sections) + 1)
            if value:
                parts.append(f"{indent}{key:<{44 - len(indent)}}: {value}")
            shown = (*sections, key)
    return "\n".join(parts) + "\n"
