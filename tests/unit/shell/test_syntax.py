"""The parser against `dash -n` and `bash -n`: where it is certain of an error there is one, and it misses none here."""

import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlhealth.shell.sh.syntax import SyntaxProblem, parse

SNIPPETS = r"""
a=(1 2)
---
function f() { :; }
---
function f { :; }
---
f() { :; }
---
foo-bar() { :; }
---
f() (echo)
---
f() echo hi
---
f()
{ echo; }
---
if true; then echo; fi
---
if true; then
---
if true; then fi
---
if true
then :
elif false; then :; else :; fi
---
for i in a b; do echo $i; done
---
for i in a b do echo $i; done
---
for i; do :; done
---
for i do :; done
---
for i
do :; done
---
for ((i=0;i<3;i++)); do :; done
---
for i in a b; { echo; }
---
while read l; do :; done < /dev/null
---
while :; do done
---
until false; do break; done
---
case x in x) echo;; esac
---
case x in (x) echo;; *) ;; esac
---
case x in x) echo; esac
---
case x in x|y) ;; esac
---
case x in x echo;; esac
---
case x in
esac
---
case x in x) a;& y) b;; esac
---
case x in x) a;;& y) b;; esac
---
case x
in x) a;;
esac
---
[[ a && b ]]
---
[[ $x =~ ^(a|b)$ ]]
---
[[ ( a ) ]]
---
[[ a < b ]]
---
[[ -n $x || -z $y ]] && echo
---
((i++))
---
((a<b))
---
echo $((1+2))
---
echo $((1+(2*3)))
---
echo $((1+2)
---
echo $(( (1) ) )
---
echo &> /dev/null
---
echo |& cat
---
cat <<< foo
---
cat <(echo)
---
cat << EOF
if ( " '
EOF
echo
---
cat << 'EOF'
$(
EOF
---
cat <<-EOF
	x
	EOF
echo
---
cat << EOF
no end
---
echo "abc
---
echo 'abc
---
echo `abc
---
echo $(abc
---
echo ${abc
---
echo "${abc:-'}"
---
echo "${abc:-"x}y"}"
---
echo ${abc:-'}'}
---
echo ${abc//a/b}
---
echo ${!abc}
---
echo ${abc[0]}
---
echo ${abc^^}
---
echo ${abc:0:1}
---
echo ${#abc} ${#} $#
---
echo ${-} ${!} ${?}
---
echo $'a\'b'
---
echo $'ab'
---
echo $"ab"
---
echo a (b)
---
echo )
---
( echo )
---
( )
---
{ }
---
{ echo; }
---
{ echo }
---
}
---
fi
---
echo fi
---
done
---
;
---
echo ;;
---
echo ; ; echo
---
& echo
---
| echo
---
echo |
---
echo &&
---
echo &&

echo
---
echo & echo
---
! echo
---
! ! echo
---
time echo
---
select x in a b; do :; done
---
coproc foo
---
x+=y
---
x+=(a b)
---
x[0]=y
---
declare -a x=(1 2)
---
export x=(1 2)
---
echo x=(1)
---
local a=(1)
---
alias ll='ls -l'
alias x="a
---
export PATH=/usr/local/cuda/bin${PATH:+:${PATH}
---
export PATH=/usr/local/cuda/bin${PATH:+:${PATH}}}
---
export PATH=$PATH:/usr/local/cuda/bin"
---
export PATH = $PATH
---
echo @(a|b)
---
ls !(a)
---
echo a#b # c ' "
---
echo \
  a
---
if [ -f x ]; then . x; fi; case $- in *i*) ;; *) return;; esac
---
if true; then echo; else; echo; fi
---
if true; then echo; elif; fi
---
foo() { if true; then echo; }
---
foo() { echo;
---
echo {a,b}
---
echo a >
---
echo a > (b)
---
echo 2>&1 >/dev/null
---
echo 3<>x
---
exec {fd}>x
---
cat <&-
---
> x
---
< x
---
x=1 y=2 echo
---
x=$(echo $(echo `echo a`))
---
x=`echo "a\`b\`"`
---
x="`echo "a"`"
---
x=`echo (`
---
x=$(case a in a) echo;; esac)
---
x=$(case a in (a) echo;; esac)
---
x=$(echo # comment )
)
---
if [ x ]; then echo; fi
---
function f
{ echo; }
---
a b() { :; }
---
do
---
then
---
in
---
case in in in) ;; esac
---
for in in in; do :; done
---
for 1x in a; do :; done
---
for i.x in a; do :; done
---
if true;then echo;fi;
---
if true;then(echo)fi
---
(echo);(echo)
---
(echo)(echo)
---
{ echo; } echo
---
if true; then echo; fi echo
---
if true; then echo; fi > /dev/null 2>&1
---
f() { echo; } > x
---
f() { echo; }; g
---
f () { echo; } g
---
f ( ) { echo; }
---
f (a) { echo; }
---
"f"() { echo; }
---
echo "a $(echo "b)" ) c"
---
echo "a $(echo 'b"' ) c"
---
echo $((
---
echo $(( 1 +
---
eval "$(dircolors -b)" || eval "x"
---
test x && { echo; } || ( echo )
---
case "$-" in *i*) ;; *) return ;; esac
---
export a=~/x:~/y b
---
a=b;c=d
---
a=b&&c=d
---
a=b c=d||:
---
#!/bin/sh
# only comment
---
echo $
---
echo "$"
---
echo "$)"
---
echo $(
---
echo \
---
x=$(cat <<E
)
E
)
---
echo ${a:-$(echo "}")}
---
echo ${a:-`echo "}"`}
---
echo "${a:-\}}"
---
echo "${a%'}'}"
---
echo "${a%"}"}"
---
echo ${a%}}
---
echo ${}
---
echo ${ }
---
echo ${a b}
---
echo ${a.b}
---
esac
---
if true then echo fi
---
while true; do echo;
---
[ -d x ] && PATH="x:$PATH
---
export PATH="/a:$PATH"
export LD_LIBRARY_PATH="/b:$LD
---
if [ -d x ] ; then PATH="x:$PATH" fi
---
if [ -d x ] {
 PATH=y
}
---
setenv PATH /a:$PATH
---
set -gx PATH a $PATH
---
if (test) then echo; endif
---
foreach i (a b)
---
source x; . y
---
a=1 ; (
---
a() { b() { c; }; }
---
()
---
(
---
a()
---
!
---
{
---
{ a
---
{ a;
---
{a; }
---
a; }
---
if ! a; then b; fi
---
if a; then b; fi; fi
---
while a do b; done
---
until
---
time
---
function
---
function (
---
[[
---
[[ a
---
[[ a ]] b
---
[[ ]]
---
a && && b
---
a || ; b
---
a | | b
---
a ||| b
---
a;;b
---
case a in b) c ;; d) e esac
---
case a in b) c ;; d) e
---
case a in
---
case a
---
case
---
case a in a) esac
---
case a in a) if b; then c; fi esac
---
case a in esac) b;; esac
---
case a in (esac) b;; esac
---
for i in; do a; done
---
for i in a
do b; done
---
for i in a;
do b; done
---
for i in a; ; do b; done
---
for i; ; do b; done
---
for
---
for i in a & do b; done
---
a<b>c
---
a 2>>b
---
a >| b
---
a >&b
---
a <<
---
a >
---
a &>b &
---
$(a
---
"$(a"
---
`a`
---
"`a"`
---
a=$(b;)
---
a=$(;)
---
a=$()
---
a=``
---
a=`b;;`
---
a=$(b;;)
---
a=$(b &)
---
a=(
---
a=(b
---
a=(b;c)
---
a=( b # c
d )
---
a= (b)
---
a+=(b)
""".strip("\n").split("\n---\n")
WINDOWS = [
    s.replace("\n", "\r\n") + "\r" for s in SNIPPETS if "\n" in s or s.startswith(("if", "case", "for", "export"))
]


@pytest.mark.parametrize(("shell", "dialect"), [("/usr/bin/dash", "sh"), ("/usr/bin/bash", "bash")])
def test_verdicts_are_those_of_the_shell(shell: str, dialect: str, tmp_path: Path) -> None:
    wrong = []
    for snippet in SNIPPETS + WINDOWS:
        file = tmp_path / "script"
        file.write_text(snippet + "\n", newline="")
        refused = subprocess.run([shell, "-n", file], capture_output=True, check=False).returncode != 0
        problem = parse(snippet + "\n", dialect).problem
        if refused != (problem is not None and problem.certain) and not (refused and problem):
            wrong.append((snippet, refused, problem))
    assert not wrong


@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from([t for s in SNIPPETS for t in s.split("\n")]), min_size=1, max_size=6).map("\n".join))
def test_certain_errors_of_lines_thrown_together(text: str) -> None:
    problem = parse(text + "\n", "sh").problem
    if problem and problem.certain:
        done = subprocess.run(["/usr/bin/dash", "-n"], input=text + "\n", text=True, capture_output=True, check=False)
        assert done.returncode != 0, problem


@given(
    st.text(alphabet="aif then fidone()${}[]\"'`\\|&;<>!#=~*?\n\t \x00é", max_size=200),
    st.sampled_from(["sh", "bash", "zsh"]),
)
def test_never_raises(text: str, dialect: str) -> None:
    script = parse(text, dialect)
    assert script.problem is None or 1 <= script.problem.line <= text.count("\n") + 1


def test_lines_are_counted() -> None:
    script = parse("a\n\nb <<E\ntext\nE\nc=(1)\n", "sh")
    assert script.problem == SyntaxProblem(6, '"(" unexpected', True)
    assert [nodes[0].line for nodes in script.lines] == [1, 3]


def test_what_is_left_open_is_found_where_it_begins() -> None:
    assert parse('a\nexport PATH="/x:$PATH\nb\nc\n', "bash").problem == SyntaxProblem(2, 'a quote " is left open', True)
    assert parse("if a; then\nb\n", "sh").problem == SyntaxProblem(1, 'the file ends where "if" is not finished', True)


def test_nesting_is_bounded() -> None:
    problem = parse("if a; then\n" * 5000, "sh").problem
    assert problem is not None
    assert not problem.certain
