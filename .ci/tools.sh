# shellcheck shell=bash
# What a run needs on the machine. Nothing is installed that is there already.

apt_get() { DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 "$@" </dev/null; }

apt_lists() {
  if [ ! -e "$WORK/apt-lists" ]; then
    apt_get update
    touch "$WORK/apt-lists"
  fi
}

# install_packages PACKAGE...: those that dpkg does not know as installed.
install_packages() {
  local package missing=()
  for package in "$@"; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
  done
  if ((${#missing[@]})); then
    say "installing ${missing[*]}"
    apt_lists
    apt_get install -y --no-install-recommends "${missing[@]}" >/dev/null
  fi
}

# The binary alone, unpacked: an installed package would start its service.
install_prometheus() {
  if command -v prometheus >/dev/null; then return 0; fi
  say 'unpacking prometheus'
  apt_lists
  mkdir -p "$WORK/prometheus"
  (cd "$WORK/prometheus" && apt_get -o APT::Sandbox::User=root download prometheus && dpkg-deb -x prometheus_*.deb .)
  export PATH=$PATH:$WORK/prometheus/usr/bin
  prometheus --version 2>&1 | head -n 1
}
