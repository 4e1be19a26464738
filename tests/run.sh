#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# Installs what the tests need, builds with warnings as errors (CUDA too where nvcc is present), and runs all tests.
# Arguments go to ctest: `tests/run.sh -L unit` runs the unit tests alone.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/prepare.sh"

install_build_packages
install_packages acl bats bsdextrautils exfat-fuse exfatprogs man-db mandoc procps rsync strace zsh zstd
say "Building"
configure_build -DWCX_WERROR=ON
# shellcheck disable=SC2119 # all of them
make_targets
say "Preparing Python and a real model"
make_python numpy ml_dtypes safetensors==0.8.0 huggingface_hub setuptools wheel xxhash zstandard
fetch_model
"$PYTHON" "$root/tests/fixtures/model_forms.py" "$build/model/model.safetensors" "$build/model/forms" \
	bf16 f8 i8pc
export WCX_MODELS=$build/model/forms
say "Testing"
ctest --test-dir "$build" --output-on-failure -j "$(nproc)" "$@"
