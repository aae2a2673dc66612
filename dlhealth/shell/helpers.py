"""What well-known programs and files do to the environment, by name.

Source: the start-up files and the output of `init` and the like that each project documents. Whatever is not listed is
unknown.
"""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


QUIET_OUTPUT = _words("""
    dircolors lesspipe lessfile starship zoxide direnv ssh-agent keychain gpg-agent gpgconf
    register-python-argcomplete thefuck fzf atuin mcfly kubectl helm minikube kind gh glab rustup pip pip3
    poetry uv uvx ruff hatch npm tput resize locale-check oh-my-posh docker podman systemctl lsof batman navi
    broot gnome-keyring-daemon dbus-launch xdg-user-dirs-update op vault terraform aws_completer gcloud beet
    scmpuff hub just bazel flux argocd k3s tmuxp cargo carapace jj
""")
"""Programs whose output, when it is run, leaves the variables as they are: functions, completions, prompts."""
PREPENDING_OUTPUT = _words("""
    conda mamba micromamba brew pyenv rbenv nodenv jenv goenv plenv opam fnm mise rtx asdf luarocks perl anyenv
    phpenv tfenv volta vfox virtualenvwrapper
""")
"""Programs whose output puts their own directories in front of PATH and leaves the rest."""
QUIET_FILE = _words("""
    bash_completion bash_completion.sh git-prompt.sh git-completion.bash .git-prompt.sh .git-completion.bash
    .git-completion.zsh key-bindings.bash completion.bash key-bindings.zsh completion.zsh
    zsh-autosuggestions.zsh zsh-syntax-highlighting.zsh p10k.zsh .p10k.zsh powerlevel10k.zsh-theme
    p10k-instant-prompt.zsh virtualenvwrapper.sh virtualenvwrapper_lazy.sh bash-preexec.sh complete.bash vte.sh
    vte-2.91.sh ble.sh im-config_wayland.sh 70im-config_launch liquidprompt z.sh autojump.sh autojump.bash autojump.zsh completion.zsh.inc
    completion.bash.inc
""")
"""Files that leave the variables as they are."""
PREPENDING_FILE = _words("""
    nvm.sh sdkman-init.sh oh-my-zsh.sh oh-my-bash.sh bash_it.sh prezto antigen.zsh zplug zinit.zsh asdf.sh
    asdf.bash rvm conda.sh mamba.sh gvm init.zsh
""")
"""Files that add their own directories to PATH."""
PREPENDING_COMMAND = _words("""
    nvm sdk pyenv rbenv rvm asdf mise workon gvm fnm jenv opam
""")
"""Functions that change PATH in the same way."""
CONDA_COMMAND = frozenset(("conda", "mamba", "micromamba"))
"""Names of conda's function."""
UNKNOWN_COMMAND = frozenset(("module", "ml", "spack", "modulecmd"))
"""Functions that may change every variable."""
MODULES_FOR_FISH = "/usr/share/fish/vendor_conf.d/modules.fish"
"""Where Debian has the file that defines Environment Modules' function for fish."""
SURROUNDING_FILE: dict[str, tuple[str, ...]] = {
    r"/opt/ros/\w+/(local_)?setup\.(ba|z)?sh": ("PYTHONPATH",),
    r".*/(devel|install)/(local_)?setup\.(ba|z)?sh": ("PYTHONPATH",),
    r".*/(modules|lmod)/init/\w+": (
        "PYTHONPATH",
        "CUDA_HOME",
        "CUDA_PATH",
        "CUDA_VISIBLE_DEVICES",
    ),
}
"""Patterns of paths of files that put directories around those of PATH and LD_LIBRARY_PATH (ROS, Environment Modules,
Lmod), and the other variables that they may set."""
