"""What a bundle must not hold, planted in every form that people write secrets in; and what it must still hold."""

import json
import string
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlhealth.engine.diagnose import diagnose
from dlhealth.engine.facts import Facts
from dlhealth.engine.rule import Rule
from dlhealth.host.bundle import read_bundle, write_bundle
from dlhealth.host.root import RootHost
from dlhealth.probes import Options
from dlhealth.probes.login.homes import authority_fault
from dlhealth.report.redact import Redactor, without_secrets
from dlhealth.report.redact_shell import Shell
from dlhealth.testing import Machine
from tests.bundles import contents

SECRET = "Hunter2Zebra"

SHELL_FORMS = (
    f"export AWS_SECRET_ACCESS_KEY={SECRET}",
    f"TOKEN={SECRET}; export TOKEN",
    f'GREETING="hello {SECRET} bye"',
    f"MIXED='a'\"$HOME{SECRET}\"b",
    f"export PATH=$PATH:/opt/x TOKEN={SECRET}",
    f"SECRET_KEY={SECRET} python train.py",
    f'curl -H "Authorization: Bearer {SECRET}" https://example.org/',
    f"wget https://alice:{SECRET}@example.org/x",
    f"alias db='mysql -u root -p{SECRET}'",
    f"sshpass -p {SECRET} ssh gpu",
    f"login --password={SECRET}",
    f"cat <<EOF > /dev/null\n{SECRET}\nEOF",
    f"cat <<'END'\nPATH={SECRET}\nEND",
    f"# the password is {SECRET}",
    f"echo {SECRET} # PATH=",
    f"""CONFIG='{{"user": "alice", "key": "{SECRET}"}}'""",
    f'LINES_OF_TEXT="one\nPATH={SECRET}\nthree"',
    f"THINGS=(one {SECRET} three)",
    f"export SPACED = {SECRET}",
    f"export NGC_API_KEY={SECRET}",
    f"PATH=$(curl -u alice:{SECRET} https://example.org/):$PATH",
    f"PATH=`pass {SECRET}`:$PATH",
    f"if [ \"$ANSWER\" = {SECRET} ]; then echo; fi",
    f'case "$ANSWER" in {SECRET}) ;; esac',
    f"{SECRET}",
    f"eval 'export X={SECRET}'",
    f"printf '%s' {SECRET} | base64",
    f"X=$'a\\n{SECRET}'",
    f'UNFINISHED="{SECRET}',
    f'PATH="/opt/x:$PATH; TOKEN={SECRET}',
    f"LD_LIBRARY_PATH=/opt/x:${{LD_LIBRARY_PATH TOKEN={SECRET}",
    f"LD_LIBRARY_PATH = /opt/x TOKEN='a {SECRET}'",
    f'PATH="/opt/x:$PATH\nexport TOKEN={SECRET}\ncurl -u me:{SECRET} x\nexport A="b"',
)  # fmt: skip
FISH_FORMS = (
    f"set -gx API_TOKEN {SECRET}",
    f"set -Ux GREETING 'hello {SECRET}'",
    f"export TOKEN={SECRET}",
    f"abbr k 'kubectl --token {SECRET}'",
    f"set -gx X (pass {SECRET})",
)
CSH_FORMS = (
    f"setenv API_TOKEN {SECRET}",
    f'setenv GREETING "hello {SECRET}"',
    f"set mypassword = {SECRET}",
    f"set words = ( one {SECRET} )",
    f"alias k 'kubectl --token {SECRET}'",
    f"if ( $x == {SECRET} ) setenv Y z",
)
FISH_VARIABLES = (f"SETUVAR --export API:{SECRET}", f"SETUVAR GREETING:a\\x20{SECRET}")
VARIABLE_FORMS = (
    f"TOKEN={SECRET}",
    f'GREETING="hello {SECRET}"',
    f"nonsense {SECRET}",
    f"A=1 \\\n{SECRET}",
    f"PATH = /x TOKEN={SECRET}",
    f'PATH="/x" T="a {SECRET}"',
)
LOG_FORMS = (
    f"dbus-update-activation-environment: setting DB_PASSWORD=a {SECRET}",
    f"connecting to postgres://alice:{SECRET}@db/x",
    f"password={SECRET}",
    f"Authorization: Bearer {SECRET}",
    f"sudo: alice : TTY=pts/0 ; PWD=/ ; USER=root ; COMMAND=/usr/bin/mysql -p{SECRET}",
    f"Environment=WANDB_API_KEY={SECRET}",
    f'{{"api_key": "{SECRET}"}}',
    f"bash: export: `{SECRET}': not a valid identifier",
    f"bash: line 3: export: `={SECRET}': not a valid identifier",
    f"sshd[1]: Invalid user {SECRET} from 10.0.0.1 port 22",
    f"sshd[1]: Failed password for invalid user {SECRET} from 10.0.0.1",
    f"using token ghp_{SECRET}{SECRET}{SECRET}",
    f"tool --password {SECRET}",
    f"-----BEGIN OPENSSH PRIVATE KEY-----\n{SECRET}\n-----END OPENSSH PRIVATE KEY-----",
)
FILE_FORMS = (
    ("/home/alice/.config/systemd/user/a.service", f'Environment=A={SECRET} "B=a {SECRET}" \\\n  C={SECRET}'),
    ("/etc/X11/xorg.conf", f'  Option "VncPassword" "{SECRET}"'),
    ("/etc/X11/xorg.conf", f"# the password is {SECRET}"),
    ("/boot/grub/grub.cfg", f"  password root {SECRET}"),
    ("/etc/default/grub", f'GRUB_CMDLINE_LINUX="quiet luks.pass={SECRET}"'),
)


@pytest.mark.parametrize(
    ("path", "form"),
    [("/home/alice/.bashrc", form) for form in SHELL_FORMS]
    + [("/etc/profile.d/x.sh", form) for form in SHELL_FORMS]
    + [("/home/alice/.config/fish/config.fish", form) for form in FISH_FORMS]
    + [("/home/alice/.tcshrc", form) for form in CSH_FORMS]
    + [("/etc/environment", form) for form in VARIABLE_FORMS]
    + [("/home/alice/.config/fish/fish_variables", form) for form in FISH_VARIABLES]
    + [("/home/alice/.xsession-errors", form) for form in LOG_FORMS]
    + [("/var/log/syslog", form) for form in LOG_FORMS]
    + list(FILE_FORMS),
)
def test_secrets_are_hidden_and_the_rest_stays(path: str, form: str) -> None:
    before = b"PATH=/usr/bin:/bin\n" if "fish" not in path and "tcsh" not in path else b"ls\n"
    content = before + form.encode() + b"\n"
    masked = Redactor({("read", path): content})(("read", path), content)
    assert SECRET.encode() not in masked
    assert masked.startswith(before)
    assert len(masked) == len(content)
    assert masked.count(b"\n") == content.count(b"\n")


KEPT = """\
#!/bin/sh
# >>> conda initialize >>>
MYCUDA=/usr/local/cuda-11.8
export PATH="$MYCUDA/bin${PATH:+:${PATH}}"
if [ -d "$HOME/.local/bin" ] ; then
    PATH="$HOME/.local/bin:$PATH"
fi
case $- in
    *i*) ;;
      *) return;;
esac
for d in /opt/a/bin /opt/b/bin; do PATH=$d:$PATH; done
pathadd () { case ":$PATH:" in *":$1:"*) ;; *) PATH="$1:$PATH" ;; esac; }
pathadd /usr/local/cuda-12/bin
. "/opt/miniconda3/etc/profile.d/conda.sh"
[ "$(id -u)" -eq 0 ] && exec startx 2>/dev/null
module load cuda/11.8
unset LD_LIBRARY_PATH
export LD_LIBRARY_PATH = /usr/lib
"""
KEPT_CSH = """\
setenv PATH /usr/local/cuda/bin:$PATH
set path = ( /usr/local/bin $path )
if ( $?LD_LIBRARY_PATH ) then
  setenv LD_LIBRARY_PATH /usr/local/cuda/lib64:$LD_LIBRARY_PATH
else
  setenv LD_LIBRARY_PATH /usr/local/cuda/lib64
endif
if ( ! $?prompt ) exit
"""
KEPT_FISH = """\
set -gx PATH /usr/local/cuda/bin $PATH
fish_add_path /opt/cuda/bin
if test -d ~/bin; set PATH ~/bin $PATH; end
"""


@pytest.mark.parametrize(("path", "text"), [("/x.sh", KEPT), ("/h/.cshrc", KEPT_CSH), ("/x.fish", KEPT_FISH)])
def test_what_rules_are_about_is_kept(path: str, text: str) -> None:
    assert Shell({path: text}).mask(path, text) == text


def test_a_variable_is_kept_where_another_file_makes_path_of_it() -> None:
    scripts = {
        "/etc/profile.d/a.sh": "TOOLS=/opt/tools\nOTHER=/opt/other\n",
        "/home/alice/.profile": "PATH=$TOOLS/bin\n",
    }
    assert (
        Shell(scripts).mask("/etc/profile.d/a.sh", scripts["/etc/profile.d/a.sh"])
        == "TOOLS=/opt/tools\nOTHER=/xxx/xxxxx\n"
    )


def test_a_secret_is_not_kept_even_where_path_is_made_of_it() -> None:
    text = f"MY_TOKEN={SECRET}\nPATH=$PATH:/x/$MY_TOKEN\n"
    assert SECRET not in Shell({"/x.sh": text}).mask("/x.sh", text)


LOG = """\
Nov 23 07:00:01 host gdm-password]: pam_unix(gdm-password:session): session opened for user alice(uid=1000) by (uid=0)
Nov 23 07:00:01 host gdm-password: pam_unix(gdm-password:auth): authentication failure; logname= uid=0 user=alice
[    12.345] (II) NVIDIA dlloader X Driver  535.261.03  Thu Jun 12 00:00:00 UTC 2025
NVRM: API mismatch: the client has the version 570.86.10, but this kernel module has the version 550.54.14.
NVRM: Xid (PCI:0000:01:00): 79, pid=1234, name=python3, GPU has fallen off the bus.
Loaded X.509 cert 'Debian Secure Boot CA: 6ccece7e4c6c0d1f6149f3dd27dfcc5cbb419ea1'
Kernel command line: BOOT_IMAGE=/boot/vmlinuz-6.1.0-50-amd64 root=UUID=0a1b-2c3d ro quiet nvidia-drm.modeset=1
sudo: alice : TTY=pts/0 ; PWD=/ ; USER=root ; COMMAND=/usr/bin/apt install nvidia-driver
NVIDIA-Linux-x86_64-535.54.03.run: installed /usr/lib/x86_64-linux-gnu/libnvidia-glcore.so.535.54.03
gnome-shell: GL_VENDOR=llvmpipe failed to create drawable GLXContext
"""  # fmt: skip


def test_logs_keep_what_is_no_secret() -> None:
    assert without_secrets(LOG).splitlines()[:-1] == LOG.splitlines()[:-1]


def test_kernel_command_line_hides_keys() -> None:
    line = f"BOOT_IMAGE=/boot/vmlinuz root=/dev/sda1 ro rd.luks.key={SECRET} nouveau.modeset=0 systemd.setenv=TOKEN={SECRET}"
    masked = without_secrets(line)
    assert SECRET not in masked
    assert masked.startswith("BOOT_IMAGE=/boot/vmlinuz root=/dev/sda1 ro rd.luks.key=x")
    assert "nouveau.modeset=0" in masked


def test_journal_hides_in_messages_only() -> None:
    boot = "0123456789abcdef0123456789abcdef"
    entries = [
        {"MESSAGE": f"login with password={SECRET}", "_BOOT_ID": boot, "SYSLOG_IDENTIFIER": "gdm-password]"},
        {"MESSAGE": list(f"token={SECRET} \xff".encode("latin-1")), "_BOOT_ID": boot},
        {"MESSAGE": None, "_BOOT_ID": boot},
    ]
    question = ("run", "journalctl")
    masked = Redactor({})(question, "\n".join(map(json.dumps, entries)).encode()).decode()
    assert SECRET not in masked
    assert [json.loads(line)["_BOOT_ID"] for line in masked.splitlines()] == [boot] * 3
    assert json.loads(masked.splitlines()[0])["SYSLOG_IDENTIFIER"] == "gdm-password]"
    assert SECRET not in Redactor({})(question, f"not JSON: password={SECRET}".encode()).decode()


def authority(*cookies: bytes) -> bytes:
    def counted(value: bytes) -> bytes:
        return len(value).to_bytes(2, "big") + value

    start = b"\1\0" + counted(b"host") + counted(b"0") + counted(b"MIT-MAGIC-COOKIE-1")
    return b"".join(start + counted(cookie) for cookie in cookies)


@pytest.mark.parametrize(
    "content",
    [authority(SECRET.encode()), authority(b"1" * 16, SECRET.encode()), authority(b"1" * 16) + SECRET.encode(), b"", SECRET.encode()],
)  # fmt: skip
def test_x_authority_hides_cookies_and_keeps_its_fault(content: bytes) -> None:
    masked = Redactor({})(("read", "/home/alice/.Xauthority"), content)
    assert SECRET.encode() not in masked
    assert len(masked) == len(content)
    assert authority_fault(masked) == authority_fault(content)


def test_other_binary_files_are_blank_and_programs_stay() -> None:
    redactor = Redactor({})
    assert set(redactor(("read", "/home/alice/.config/dconf/user"), b"a\0" + SECRET.encode())) == {0}
    program = b"\x7fELF\0\0"
    assert redactor(("head", "/usr/bin/python3", "6"), program) == program


def test_environment_of_a_process() -> None:
    content = f"PATH=/usr/bin\0TOKEN={SECRET}\0CUDA_VISIBLE_DEVICES=0\0".encode()
    masked = Redactor({})(("read", "/proc/1234/environ"), content)
    assert masked == f"PATH=/usr/bin\0TOKEN={'x' * len(SECRET)}\0CUDA_VISIBLE_DEVICES=0\0".encode()


def test_pam_env_conf_keeps_its_form() -> None:
    content = f"PATH DEFAULT=/bin OVERRIDE=@{{HOME}}/bin\nTOKEN DEFAULT={SECRET} OVERRIDE={SECRET}\n".encode()
    masked = Redactor({})(("read", "/etc/security/pam_env.conf"), content).decode()
    x = "x" * len(SECRET)
    assert masked == f"PATH DEFAULT=/bin OVERRIDE=@{{HOME}}/bin\nTOKEN DEFAULT={x} OVERRIDE={x}\n"


@given(st.text(alphabet=string.printable, max_size=200), st.sampled_from(["/x.sh", "/x.fish", "/h/.tcshrc"]))
def test_any_script_keeps_its_shape(text: str, path: str) -> None:
    masked = Shell({path: text}).mask(path, text)
    assert len(masked) == len(text)
    assert [c for c in masked if not c.isalnum()] == [c for c in text if not c.isalnum()]


@given(st.binary(max_size=300), st.sampled_from(["/home/alice/.bashrc", "/etc/environment", "/var/log/syslog", "/home/a/.Xauthority"]))  # fmt: skip
def test_no_content_is_too_strange(content: bytes, path: str) -> None:
    Redactor({("read", path): content})(("read", path), content)
    Redactor({})(("run", "journalctl"), content)


@pytest.mark.parametrize("opening", ["$(", "${a:-", "`", '"$(', "(", "case x in a) "])
def test_deep_nesting_ends(opening: str) -> None:
    text = f"PATH={opening * 3000}"
    assert len(Shell({"/x.sh": text}).mask("/x.sh", text)) == len(text)


def test_a_whole_bundle(tmp_path: Path, rules: tuple[Rule, ...]) -> None:
    """Secrets in every file that a person may keep them in are nowhere in the archive, and the doctor sees the same."""
    root = tmp_path / "root"
    root.mkdir()
    shell = "\n".join(form for form in SHELL_FORMS if not form.startswith("UNFINISHED"))
    machine = (
        Machine.ubuntu2404_gpu()
        .cuda_toolkit()
        .user("carol", 1002, "/usr/bin/fish")
        .user("dave", 1003, "/bin/tcsh")
        .append("/home/alice/.bashrc", f"{shell}\nexport PATH=/usr/local/cuda-9.9/bin:$PATH\nexport CUDA_HOME=/usr/local/cuda-9.9\n")
        .append("/home/alice/.profile", f"{shell}\n")
        .file("/etc/profile.d/site.sh", f"{shell}\n")
        .file("/home/carol/.config/fish/config.fish", "\n".join(FISH_FORMS), uid=1002)
        .file("/home/dave/.tcshrc", "\n".join(CSH_FORMS), uid=1003)
        .file("/etc/environment", "PATH=\"/usr/bin:/bin\"\n" + "\n".join(VARIABLE_FORMS))
        .file("/home/alice/.config/environment.d/a.conf", f"TOKEN={SECRET}\n", uid=1000)
        .file("/home/alice/.xsession-errors", "\n".join(LOG_FORMS), uid=1000)
        .file("/home/alice/.Xauthority", authority(SECRET.encode()), 0o600, 1000)
        .file("/etc/apt/sources.list", f"deb https://alice:{SECRET}@apt.example.org/ noble main\n")
        .file("/var/log/auth.log", "\n".join(f"Nov 23 07:00:0{n} host lightdm: {form}" for n, form in enumerate(LOG_FORMS)))
        .file("/proc/cmdline", f"root=/dev/sda1 rd.luks.key={SECRET}\n")
    )  # fmt: skip
    machine.build(root)
    host = RootHost(str(root))
    options = Options(users=("alice", "carol", "dave"))
    before = diagnose(rules, Facts(host, options))
    assert any(SECRET.encode() in a for a in host.seen.values() if isinstance(a, bytes)), "nothing was read"
    bundle = tmp_path / "bundle.tar.gz"
    write_bundle(host, str(bundle), Redactor(host.seen), {})
    assert not [name for name, content in contents(bundle).items() if SECRET.encode() in content]
    after = diagnose(rules, Facts(read_bundle(str(bundle)), options))
    assert after.findings == before.findings
    assert after.skipped == before.skipped
