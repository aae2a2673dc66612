"""The builtin commands of each shell."""

_WORDS = {
    "sh": """
        : . [ alias bg break cd chdir command continue echo eval exec exit export false fg getopts hash jobs kill
        local printf pwd read readonly return set shift test times trap true type ulimit umask unalias unset wait
    """,
    "bash": """
        ! . : [ [[ ]] alias bg bind break builtin caller case cd command compgen complete compopt continue coproc
        declare dirs disown do done echo elif else enable esac eval exec exit export false fc fg fi for function
        getopts hash help history if in jobs kill let local logout mapfile popd printf pushd pwd read readarray
        readonly return select set shift shopt source suspend test then time times trap true type typeset ulimit
        umask unalias unset until wait while { }
    """,
    "zsh": """
        ! - . : [ [[ alias autoload bg bindkey break builtin bye case cd chdir chgrp chmod chown command compadd
        comparguments compcall compctl compdescribe compfiles compgroups compquote compset comptags comptry
        compvalues continue coproc declare dirs disable disown do done echo echotc echoti elif else emulate enable
        end esac eval exec exit export false fc fg fi float for foreach function functions getln getopts hash
        history if integer jobs kill let limit ln local log logout mkdir mv nocorrect noglob popd print printf
        private pushd pushln pwd r read readonly rehash repeat return rm rmdir sched select set setopt shift
        source stat strftime suspend sync syserror sysopen sysread sysseek syswrite test then time times trap true
        ttyctl type typeset ulimit umask unalias unfunction unhash unlimit unset unsetopt until vared wait whence
        where which while zcompile zf_chgrp zf_chmod zf_chown zf_ln zf_mkdir zf_mv zf_rm zf_rmdir zf_sync zformat
        zle zmodload zparseopts zpty zregexparse zstat zstyle zsystem { }
    """,
}
OWN_COMMANDS = {dialect: frozenset(words.split()) for dialect, words in _WORDS.items()}
"""As `compgen -bk` of bash 5.2 and the modules zsh/parameter of zsh 5.9 list them; of dash, its manual page."""
