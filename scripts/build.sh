#!/usr/bin/env bash
# Builds what is missing or out of date: system packages (as root), npm packages, native/ and the managed code.
# Usage: scripts/build.sh [all] [auto|packages|embedded]   'all' builds the tests too; the other word, or ORLEANS_ENGINE, is the
# engine that runs the grains (docs/adr/0005-engines.md): auto, the default, takes the Orleans packages when the feed has them.
# Progress goes to stderr.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
export DOTNET_CLI_TELEMETRY_OPTOUT=1 DOTNET_NOLOGO=1

say() { printf '%s\n' "$*" >&2; }
fail() { say "$*"; exit 1; }

what=trainer asked=${ORLEANS_ENGINE:-auto}
for argument in "$@"; do
  case $argument in
    all|trainer) what=$argument ;;
    *) asked=$argument ;;
  esac
done
case $asked in
  auto|packages|embedded) ;;
  *) fail "The engine is auto, packages or embedded, not \"$asked\"." ;;
esac

command -v dotnet >/dev/null || fail "The .NET 10 SDK is missing: install it from https://dot.net and run this again."
dotnet --list-sdks | grep -q '^10\.' || fail "The .NET 10 SDK is missing (found: $(dotnet --list-sdks | tr '\n' ' ')): install it from https://dot.net."
command -v npm >/dev/null || fail "Node.js with npm is missing: install Node.js 20 or later and run this again."

system_packages() {
  local missing=()
  command -v cmake >/dev/null || missing+=(cmake)
  command -v ninja >/dev/null || missing+=(ninja-build)
  command -v g++ >/dev/null || missing+=(g++)
  if [ -z "${TRAINER_LIBTORCH:-}" ] && ! python3 -c 'import torch' 2>/dev/null; then
    [ -f /usr/include/torch/csrc/autograd/custom_function.h ] || missing+=(libtorch-dev)
    [ -f /usr/include/gloo/context.h ] || missing+=(libgloo-dev)
    compgen -G '/usr/lib/*/openblas-pthread/libopenblas.so.0' >/dev/null || missing+=(libopenblas0-pthread)
  fi
  if [ "$what" = all ]; then
    # Tests of the dashboard: a browser, and fonts for it.
    command -v chromium >/dev/null || missing+=(chromium)
    compgen -G '/usr/share/fonts/*/inter*' >/dev/null || missing+=(fonts-inter)
    compgen -G '/usr/share/fonts/truetype/dejavu/DejaVuSansMono.ttf' >/dev/null || missing+=(fonts-dejavu-core)
  fi
  [ ${#missing[@]} -eq 0 ] && return
  local line="apt-get update && apt-get install -y --no-install-recommends ${missing[*]}"
  command -v apt-get >/dev/null || fail "Missing: ${missing[*]}. Install them with your package manager and run this again."
  [ "$(id -u)" -eq 0 ] || fail "System packages are missing. Run this line, then try again:
  sudo sh -c '$line'"
  say "Installing ${missing[*]} ..."
  { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${missing[@]}"; } > artifacts/apt.log 2>&1 \
    || { tail -n 20 artifacts/apt.log >&2; fail "apt-get failed; the whole log is artifacts/apt.log"; }
}

# The tests check with promtool what Prometheus is told. Only that program of Debian's package is taken: nobody here needs its server.
fetch_promtool() {
  command -v promtool >/dev/null || [ -x artifacts/tools/usr/bin/promtool ] && return
  command -v apt-get >/dev/null || fail "promtool is missing: install Prometheus, whose tests of rules and metrics the tests use."
  say "Fetching promtool ..."
  {
    [ "$(id -u)" -ne 0 ] || apt-get update
    (mkdir -p artifacts/tools && cd artifacts/tools && apt-get download prometheus && dpkg-deb --fsys-tarfile prometheus_*.deb | tar -x ./usr/bin/promtool && rm prometheus_*.deb)
  } > artifacts/promtool.log 2>&1 || { tail -n 20 artifacts/promtool.log >&2; fail "promtool cannot be fetched; the whole log is artifacts/promtool.log"; }
}

# True when a file of the given paths is newer than the stamp.
changed() { local stamp=$1; shift; [ ! -f "$stamp" ] || [ -n "$(find "$@" -newer "$stamp" -type f -not -path '*/build/*' -not -path '*/obj/*' -print -quit 2>/dev/null)" ]; }

step() { # stamp, title, log, command...
  local stamp=$1 title=$2 log=$3; shift 3
  say "$title ..."
  local begun; begun=$(mktemp artifacts/.stamp.XXXXXX)
  "$@" > "$log" 2>&1 || { tail -n 40 "$log" >&2; rm -f "$begun"; fail "$title failed; the whole log is $log"; }
  mv "$begun" "$stamp"
}

# With CUDA where there is a compiler for it and a libtorch that has it.
preset() {
  if command -v nvcc >/dev/null && { compgen -G "${TRAINER_LIBTORCH:-/nonexistent}/lib/libtorch_cuda.so" || python3 -c 'import torch; assert torch.version.cuda'; } >/dev/null 2>&1; then
    echo cuda
  else
    echo cpu
  fi
}

native() { cmake -S native --preset "$NativePreset" && cmake --build "native/build/$NativePreset"; }

managed() {
  local target=$1
  dotnet restore "$target" && dotnet build "$target" -c Release -m:2 --no-restore -v minimal
}

# Projects read the engine in artifacts/.engine, which counts as a source.
use() { export ORLEANS_ENGINE=$1; [ "$(cat artifacts/.engine 2>/dev/null)" = "$1" ] || echo "$1" > artifacts/.engine; }

choose_engine() {
  local found=artifacts/.engine-found
  if [ "$asked" = auto ] && changed "$found" Directory.Packages.props src/Contracts/Trainer.Contracts.csproj src/Coordinator/Trainer.Coordinator.csproj; then
    say "Asking the feed for the Orleans packages ..."
    if timeout 120 dotnet restore src/Coordinator/Trainer.Coordinator.csproj -p:OrleansEngine=packages --artifacts-path artifacts/probe > artifacts/engine.log 2>&1; then
      say "It has them: Microsoft Orleans runs the grains."
      echo packages > "$found"
    else
      say "It does not (artifacts/engine.log): the embedded engine runs the grains."
      echo embedded > "$found"
    fi
  fi
  if [ "$asked" = auto ]; then use "$(cat "$found")"; else use "$asked"; fi
}

managed_step() { # stamp, title, target, sources...
  local stamp=$1 title=$2 target=$3; shift 3
  changed "$stamp" "$@" || return 0
  if [ "$asked" = auto ] && [ "$ORLEANS_ENGINE" = packages ]; then
    if (step "$stamp" "$title with the Orleans packages" artifacts/managed.log managed "$target"); then
      return 0
    fi
    say "That failed; trying the embedded engine."
    use embedded
    step "$stamp" "$title" artifacts/managed.log managed "$target"
    echo embedded > artifacts/.engine-found
  else
    step "$stamp" "$title ($ORLEANS_ENGINE engine)" artifacts/managed.log managed "$target"
  fi
}

mkdir -p artifacts
exec 9> artifacts/.lock
flock 9
if changed "artifacts/.system-$what" scripts/build.sh; then
  system_packages
  touch "artifacts/.system-$what"
fi
[ "$what" != all ] || fetch_promtool
# MSBuild reads it too.
export NativePreset=${NativePreset:-$(preset)}
[ "$(cat artifacts/.preset 2>/dev/null)" = "$NativePreset" ] || { rm -f artifacts/.native; echo "$NativePreset" > artifacts/.preset; }
changed artifacts/.npm package-lock.json || [ ! -d node_modules ] && step artifacts/.npm "Restoring npm packages" artifacts/npm.log npm ci --no-audit --no-fund --omit=optional
changed artifacts/.native native && step artifacts/.native "Building native code" artifacts/native.log native
choose_engine
managed_sources=(src global.json Directory.Build.props Directory.Build.targets Directory.Packages.props .editorconfig artifacts/.native artifacts/.engine)
if [ "$what" = all ]; then
  managed_step artifacts/.tests "Building managed code and tests" Trainer.sln "${managed_sources[@]}" tests
fi
managed_step artifacts/.managed "Building managed code" src/Trainer/Trainer.csproj "${managed_sources[@]}"
