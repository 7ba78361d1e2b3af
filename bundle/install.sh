#!/usr/bin/env bash
# Prepares this folder on a machine with NVIDIA GPUs: finds libtorch, CUDA and NCCL, says what it found, and builds native/ with
# them. Fetches nothing. TRAINER_LIBTORCH names another libtorch (the folder with include/ and lib/), CUDA_HOME another CUDA.
set -euo pipefail
root=$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")" && pwd)
cd "$root"
log=$root/install.log
started=$SECONDS

found() { printf '%-10s %s\n' "$1" "$2"; }
fail() { printf '%s\n' "$*" >&2; exit 1; }

# Folders that may hold a libtorch, the preferred one first.
libtorch_candidates() {
  [ -z "${TRAINER_LIBTORCH:-}" ] || { echo "$TRAINER_LIBTORCH"; return; }
  local python
  for python in python3 python; do
    command -v "$python" >/dev/null && "$python" -c 'import importlib.util as u; s = u.find_spec("torch"); s and print(s.submodule_search_locations[0])' 2>/dev/null
  done
  ls -d /opt/libtorch /usr/local/libtorch "$HOME/libtorch" "${CONDA_PREFIX:-/nonexistent}"/lib/python3*/site-packages/torch 2>/dev/null || true
}

version_of() {
  { [ -f "$1/build-version" ] && cat "$1/build-version"; } || sed -n "s/^__version__ = '\(.*\)'/\1/p" "$1/version.py" 2>/dev/null || true
}

new_enough() { [ "$(printf '2.4\n%s\n' "$1" | sort -V | head -n 1)" = 2.4 ]; }

libtorch='' rejected=''
while read -r candidate; do
  version=$(version_of "$candidate")
  if [ ! -f "$candidate/include/torch/csrc/autograd/custom_function.h" ]; then rejected+="  $candidate: no C++ headers"$'\n'
  elif [ ! -f "$candidate/lib/libtorch_cuda.so" ]; then rejected+="  $candidate: $version, without CUDA"$'\n'
  elif ! new_enough "$version"; then rejected+="  $candidate: $version, 2.4 or later is needed"$'\n'
  else libtorch=$candidate; break
  fi
done < <(libtorch_candidates)
[ -n "$libtorch" ] || fail "No libtorch with CUDA was found. Install PyTorch 2.4 or later, or set TRAINER_LIBTORCH.
$rejected"
found libtorch "$version in $libtorch"

nvcc=$(command -v "${CUDA_HOME:+$CUDA_HOME/bin/}nvcc" || ls /usr/local/cuda/bin/nvcc 2>/dev/null || true)
[ -n "$nvcc" ] || fail "nvcc was not found. Install the CUDA toolkit (12.1 or later), or set CUDA_HOME."
found CUDA "$("$nvcc" --version | sed -n 's/.*release \([0-9.]*\).*/\1/p') in $(dirname "$(dirname "$nvcc")")"
found GPU "$( { nvidia-smi --query-gpu=name,driver_version --format=csv,noheader 2>/dev/null || echo none; } | paste -sd ';')"
nccl=$(ls "$libtorch"/../nvidia/nccl/lib/libnccl.so.2 "$libtorch"/lib/libnccl.so* 2>/dev/null | head -n 1 || true)
[ -n "$nccl" ] || nccl=$(ldconfig -p 2>/dev/null | sed -n 's/.*libnccl\.so\.2 .*=> //p' | head -n 1)
found NCCL "${nccl:-none (jobs with several ranks need it)}"
for tool in cmake g++; do
  command -v "$tool" >/dev/null || fail "$tool was not found; install it and run this again."
done
found compiler "$(g++ --version | head -n 1), $(cmake --version | head -n 1)"
ldconfig -p 2>/dev/null | grep -q libicuuc || found ICU "none: install libicu, or the program does not start"

generator=()
command -v ninja >/dev/null || generator=(-G 'Unix Makefiles')
export TRAINER_LIBTORCH=$libtorch CUDACXX=$nvcc
echo "Building native/ ..."
{ cmake -S native --preset cuda "${generator[@]}" -DTN_TESTS=OFF && cmake --build native/build/cuda --parallel "$(nproc)"; } > "$log" 2>&1 \
  || { tail -n 40 "$log" >&2; fail "The build failed; the whole log is $log"; }
echo "Ready after $((SECONDS - started)) s. Now: $root/trainer doctor"
