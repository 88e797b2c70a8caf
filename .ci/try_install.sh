#!/bin/sh
# Builds the wheel, installs it where nothing else is, and runs the first code of the
# README from another folder, as printed: .ci/try_install.sh BACKEND [PIP ARGUMENTS]
#
# BACKEND is tensorflow, jax or torch. Further arguments go to `pip install`: versions,
# or a file of constraints. PYTHON chooses the interpreter.
set -eu

backend=$1
shift
root=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export KERAS_BACKEND="$backend" TF_CPP_MIN_LOG_LEVEL=3 PYTHONWARNINGS=error::UserWarning

"${PYTHON:-python3}" -m venv "$work/venv"
python="$work/venv/bin/python"
"$python" -m pip wheel --quiet --no-deps --wheel-dir "$work" "$root"
wheel=$(echo "$work"/keras_bsnn-*.whl)
"$python" -m pip install --quiet "$wheel[$backend]" "$@"
"$python" -m pip check

cd "$work"
sed -n '/^```python$/,/^```$/p' "$root/README.md" | sed '/^```$/q' | sed '/^```/d' > readme.py
"$python" readme.py
for file in *.keras; do
    "$python" - "$file" <<'END'
import sys

import keras

import keras_bsnn

model = keras.models.load_model(sys.argv[1])
model.summary()
if keras.backend.backend() == "tensorflow":
    keras_bsnn.export.saved_model(model, "served")
    keras_bsnn.export.verify("served")
keras_bsnn.export.to_keras(model).save("plain.keras")
print(keras_bsnn.__file__, keras.__version__, keras.backend.backend(), "works")
END
done
"$python" -c 'import keras; keras.models.load_model("plain.keras")'
