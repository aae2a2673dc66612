"""Why a build of DKMS failed, by its make.log."""

import pytest

from dlhealth.probes.dkms import read_log

HEAD = "DKMS make.log for nvidia-470.256.02 for kernel 5.15.0-119-generic (x86_64)\nMon Jul 29 10:00:00 UTC 2024\n"
# NVIDIA's Makefile has the kernel's show its commands: until Linux 5.18 this one is in every log, whatever went wrong.
SHOWN = (
    "make[1]: Entering directory '/usr/src/linux-headers-5.15.0-119-generic'\n"
    "test -e include/generated/autoconf.h -a -e include/config/auto.conf || (\t\t\\\n"
    "echo >&2;\t\t\t\t\t\t\t\\\n"
    'echo >&2 "  ERROR: Kernel configuration is invalid.";\t\t\\\n'
    'echo >&2 "         include/generated/autoconf.h or include/config/auto.conf are missing.";\\\n'
    "echo >&2 \"         Run 'make oldconfig && make prepare' on kernel src to fix it.\";\t\\\n"
    "echo >&2 ;\t\t\t\t\t\t\t\\\n/bin/false)\n"
)


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("/var/lib/dkms/nvidia/build/os-mlock.c:23:12: error: implicit declaration of function 'follow_pfn'\n", "kernel-too-new"),
        ("*** Failed CC version check. Bailing out! ***\n", "compiler"),
        ("cc: error: unrecognized command-line option '-ftrivial-auto-var-init=zero'\n", "compiler"),
        ("fatal error: error writing to /tmp/ccxQv0Qs.s: No space left on device\n", "disk-full"),
        ("FATAL: modpost: GPL-incompatible module nvidia.ko uses GPL-only symbol 'rcu_read_lock_strict'\n", "gpl-symbol"),
        ("\n  ERROR: Kernel configuration is invalid.\n         include/generated/autoconf.h or x are missing.\n", "headers"),
        ("***  ERROR: Kernel configuration is invalid.\n", "headers"),
        ("make: *** /lib/modules/5.15.0-119-generic/build: No such file or directory.  Stop.\n", "headers"),
        ("make[3]: *** No rule to make target 'scripts/module.lds', needed by 'nvidia.ko'.  Stop.\n", "headers"),
        ("cc1: out of memory allocating 65536 bytes after a total of 4096 bytes\n", "memory"),
        ("make[1]: *** [Makefile:1901: modules] Error 2\n", "unknown"),
    ],
)  # fmt: skip
def test_the_cause_is_what_make_said_not_the_commands_that_it_showed(text: str, cause: str) -> None:
    build = read_log(HEAD + SHOWN + text, "/make.log")
    assert (build.kernel, build.cause) == ("5.15.0-119-generic", cause)
    assert "echo" not in build.error
