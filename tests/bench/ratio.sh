#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# Compares the ratios of wcx and its peers on a real model in ten forms and on the synthetic set, from scratch, and draws
# docs/bits_per_weight.svg.  Installs what it needs (Debian packages, and PyPI packages into build/).
# Passes its arguments to ratio.py.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/../prepare.sh"

forms=()
for form in i8pc i8pt f8 bf16 f16 f32; do
	forms+=("$build/model/forms/$form.safetensors")
done

narrow=(w4a16 w4a16_g128 mxfp4 nvfp4) # of four bits

install_build_packages
install_packages libhtscodecs2
say "Building"
# shellcheck disable=SC2119 # without options
configure_build
# shellcheck disable=SC2119 # all of them
make_targets
say "Preparing Python, a real model and the synthetic set"
make_python numpy ml_dtypes safetensors==0.8.0 zstandard pcodec matplotlib
make_python --no-deps zipnn # without its dependency PyTorch, which ratio.py does not need
fetch_model
"$PYTHON" "$root/tests/fixtures/model_forms.py" "$build/model/model.safetensors" "$build/model/forms"
"$PYTHON" "$root/tests/fixtures/model_forms.py" "$build/model/model.safetensors" "$build/model/forms" "${narrow[@]}"
"$PYTHON" "$root/tests/fixtures/gaussian_set.py" "$build/model/gaussian"
say "The synthetic set"
"$PYTHON" "$root/tests/bench/ratio.py" --build "$build" --markdown "$@" "$build"/model/gaussian/*.safetensors
say "The model"
"$PYTHON" "$root/tests/bench/ratio.py" --build "$build" --markdown --json "$build/ratio.json" "$@" "${forms[@]}"
"$PYTHON" "$root/tests/bench/ratio_chart.py" "$build/ratio.json" "$root/docs/bits_per_weight.svg"
say "The model in four bits"
narrow=("${narrow[@]/%/.safetensors}")
"$PYTHON" "$root/tests/bench/ratio.py" --build "$build" --markdown "$@" "${narrow[@]/#/$build/model/forms/}"
