#!/bin/sh
# chunks.sh FOLDER MAX SOURCE…: writes files to FOLDER that include the sources of a module (the folder that a source is in), at
# most MAX each, and prints their names. One that is there and has not changed is not touched.
set -eu
folder=$1 max=$2
shift 2
mkdir -p "$folder"
printf '%s\n' "$@" | awk -v folder="$folder" -v max="$max" '
    { module = $0; sub("/.*", "", module) }
    !(module in count) { modules[++known] = module }
    { source[module, ++count[module]] = $0 }
    END {
        for (m = 1; m <= known; ++m) {
            module = modules[m]
            chunks = int((count[module] + max - 1) / max)
            for (i = 1; i <= count[module]; ++i) {
                name = folder "/" module "_" int((i - 1) * chunks / count[module]) + 1 ".cc"
                if (!(name in text)) print name
                text[name] = text[name] "#include \"" source[module, i] "\"\n"
            }
        }
        for (name in text) {
            before = ""
            while ((getline line < name) > 0) before = before line "\n"
            close(name)
            if (before != text[name]) printf "%s", text[name] > name
        }
    }'
