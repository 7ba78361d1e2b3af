#!/usr/bin/env bash
# Builds everything and runs every test; the last line is 'N passed, N failed'. A skipped test counts as failed.
# Usage: ./test.sh [project ...]   e.g. ./test.sh Worker.Tests; without arguments all, native tests included. Gpu.Tests runs where
# there is an NVIDIA GPU, or when it is named.
set -uo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cd "$root"
scripts/build.sh all || { echo "0 passed, 1 failed"; exit 1; }
DOTNET_ROOT=${DOTNET_ROOT:-$(dirname "$(readlink -f "$(command -v dotnet)")")}
export DOTNET_ROOT DOTNET_CLI_TELEMETRY_OPTOUT=1
passed=0 failed=0

count() { grep -oE "$2" "$1" | grep -oE '[0-9]+' | awk '{ sum += $1 } END { print sum + 0 }'; }

if [ $# -eq 0 ]; then
  echo "== native"
  log=artifacts/native-tests.log
  ctest --test-dir "native/build/$(cat artifacts/.preset)" --output-on-failure --no-tests=error > "$log" 2>&1 || true
  tail -n 8 "$log"
  total=$(count "$log" 'out of [0-9]+'); bad=$(count "$log" '[0-9]+ tests? failed')
  [ "$total" -gt 0 ] || bad=1
  passed=$((passed + total - bad)) failed=$((failed + bad))
fi

projects=("$@")
[ ${#projects[@]} -gt 0 ] || for project in tests/*/*.csproj; do
  name=$(basename "$project" .csproj)
  [ "$name" = Gpu.Tests ] && [ ! -e /dev/nvidia0 ] && continue
  projects+=("$name")
done
run() { # title, log, arguments of dotnet test...
  local title=$1 log=artifacts/$2.log started=$SECONDS code ok bad skipped
  shift 2
  echo "== $title"
  dotnet test "$@" -c Release --no-build --nologo -v quiet \
    --logger 'console;verbosity=minimal' --blame-hang-timeout 8m --blame-hang-dump-type none > "$log" 2>&1
  code=$?
  ok=$(count "$log" 'Passed: +[0-9]+'); bad=$(count "$log" 'Failed: +[0-9]+'); skipped=$(count "$log" 'Skipped: +[0-9]+')
  [ "$code" -ne 0 ] && [ "$bad" -eq 0 ] && bad=1
  [ "$ok" -eq 0 ] && [ "$bad" -eq 0 ] && bad=1
  if [ "$bad" -gt 0 ] || [ "$skipped" -gt 0 ]; then
    cat "$log"
  fi
  echo "$ok passed, $bad failed, $skipped skipped in $((SECONDS - started)) s"
  passed=$((passed + ok)) failed=$((failed + bad + skipped))
}

for project in "${projects[@]}"; do
  run "$project" "$project" "tests/$project/$project.csproj"
done

# Where the Orleans packages run the grains, the coordinator's tests run once more with the embedded engine.
if [ $# -eq 0 ] && [ "$(cat artifacts/.engine)" = packages ]; then
  embedded=(tests/Coordinator.Tests/Coordinator.Tests.csproj -p:OrleansEngine=embedded --artifacts-path artifacts/embedded)
  if dotnet build "${embedded[@]}" -c Release -m:2 --nologo -v quiet > artifacts/embedded.log 2>&1; then
    run "Coordinator.Tests, embedded engine" Coordinator.Tests.embedded "${embedded[@]}"
  else
    cat artifacts/embedded.log
    failed=$((failed + 1))
  fi
fi
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
