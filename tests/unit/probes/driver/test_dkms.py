"""Why a build of DKMS failed, by its make.log."""

import pytest

from dlhealth.probes.driver.buildlog import compiler_major, read_log

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
    log = read_log(HEAD + SHOWN + text)
    assert (log.kernel, log.fault) == ("5.15.0-119-generic", cause)
    assert "echo" not in log.error


NEWER = "  The kernel was built by: gcc (GCC) 13.2.1\n  You are using:           cc (GCC) 15.1.1\n"
OLDER = "  The kernel was built by: gcc-13 (Debian 13.2.0-5) 13.2.0\n  You are using: gcc (Ubuntu 11.4.0-1) 11.4.0\n"


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        # A header that is missing below the kernel's own ones, or below the driver's.
        ("./include/linux/module.h:21:10: fatal error: asm/orc_header.h: No such file or directory\n", "kbuild"),
        ("./arch/x86/include/asm/orc_header.h:9:10: fatal error: asm/orc_hash.h: No such file or directory\n", "kbuild"),
        ("/usr/src/linux-headers-6.1.0-9-common/include/linux/a.h:1:2: fatal error: linux/b.h: No such file\n", "kbuild"),
        ("nvidia/nv.c:14:10: fatal error: generated/autoconf.h: No such file or directory\n", "kbuild"),
        ("common/inc/nv-linux.h:131:10: schwerwiegender Fehler: asm/system.h: Datei nicht gefunden\n", "kernel-too-new"),
        ("nvidia/nv-drm.c:9:10: fatal error: drm/drmP.h: No such file or directory\n", "kernel-too-new"),
        ("  The Module.symvers file is missing, or\n", "unknown"),
        ("The Module.symvers file is missing, or does not contain any\n", "kbuild"),
        # The kernel's tools.
        ("ERROR: modpost: /b/nvidia: sizeof(struct of_device_id)=196 is not a modulo of the size of section x\n", "kbuild"),
        ("/bin/sh: 1: scripts/mod/modpost: Exec format error\n", "kbuild"),
        ("scripts/basic/fixdep: /lib/x86_64-linux-gnu/libc.so.6: version `GLIBC_2.33' not found\n", "kbuild"),
        ("scripts/mod/modpost: error while loading shared libraries: libelf.so.1: cannot open\n", "kbuild"),
        # The compiler.
        ("uvm_va_block.c:8812:1: internal compiler error: Segmentation fault\n", "compiler-crashed"),
        ("gcc: internal compiler error: Killed (program cc1)\n", "memory"),
        ("gcc: internal compiler error: Segmentation fault signal terminated program cc1\n", "compiler-crashed"),
        ("cc1: error: incompatible gcc/plugin versions\n", "compiler"),
        ("clang: error: unknown argument: '-mrecord-mcount'\n", "compiler"),
        (f"{NEWER}nv-mm.h:29:13: error: conflicting types for 'vm_fault_t'; have 'int'\n", "newer-compiler"),
        (f"{NEWER}nv.c:2:1: error: passing argument 4 of 'f' from incompatible pointer type [-Wincompatible-pointer-types]\n", "newer-compiler"),
        (f"{NEWER}nv.h:1:1: error: implicit declaration of function 'dma_is_direct' [-Wimplicit-function-declaration]\n", "newer-compiler"),
        (f"{NEWER}nv.c:2:1: error: implicit declaration of function 'f' [-Werror=implicit-function-declaration]\n", "kernel-too-new"),
        (f"{NEWER}nv.c:2:1: error: 'struct vm_area_struct' has no member named '__vm_flags'\n", "kernel-too-new"),
        (f"{OLDER}nv-mm.h:29:13: error: conflicting types for 'vm_fault_t'; have 'int'\n", "kernel-too-new"),
        ("nv-mm.h:29:13: error: conflicting types for 'vm_fault_t'; have 'int'\n", "kernel-too-new"),
        # The language of whoever ran apt.
        ("/b/nvidia/nv.c:2:1: 错误：隐式声明函数‘follow_pfn’\n", "kernel-too-new"),
        ("/b/nvidia/nv.c:2:1: erreur: déclaration implicite de la fonction « f »\n", "kernel-too-new"),
        # Other modules.
        ("ERROR: modpost: module vboxdrv uses symbol kvm_x from namespace module:kvm-amd, but does not import it.\n", "kernel-too-new"),
        ("At main.c:167:\n- SSL error:02001002:system library:fopen:No such file or directory\n", "signing"),
    ],
)  # fmt: skip
def test_a_log_is_classified_by_what_it_says(text: str, cause: str) -> None:
    log = read_log(HEAD + text + "make[1]: *** [Makefile:1936: x] Error 2\n")
    assert log.fault == cause
    assert log.error in text or cause == "unknown"


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (
            "  CC [M] x.o\nERROR: something nobody has seen\nmake[1]: *** [x] Error 1\n",
            "ERROR: something nobody has seen",
        ),
        ("  CC [M] x.o\nobjtool: fatal: no idea\nmake[1]: *** [x] Error 1\n", "objtool: fatal: no idea"),
        ("  CC [M] x.o\nmake[1]: *** [x] Error 1\nmake: *** [y] Error 2\n", "make[1]: *** [x] Error 1"),
        ("  CC [M] x.o\nit stops here\n", "it stops here"),
    ],
)
def test_an_unknown_fault_is_quoted_all_the_same(text: str, error: str) -> None:
    log = read_log(HEAD + text)
    assert (log.fault, log.error) == ("unknown", error)


@pytest.mark.parametrize(
    ("words", "major"),
    [
        ("x86_64-linux-gnu-gcc-13 (Ubuntu 13.2.0-23ubuntu4) 13.2.0", "13"),
        ("cc (Ubuntu 15-20250301-1ubuntu1) 15.0.1 20250301 (experimental)", "15"),
        ("gcc version 5.4.0 20160609 (Ubuntu 5.4.0-6ubuntu1~16.04.4)", "5"),
        ("cc (GCC) 11.2.0", "11"),
        ("clang version 17.0.6", ""),
    ],
)
def test_the_major_version_of_a_compiler(words: str, major: str) -> None:
    assert compiler_major(words) == major
